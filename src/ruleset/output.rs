//! `NODEFWD_OUTPUT`: which connections that this host makes are led to the chain of their family.

use super::listen::{LOCAL, listens};
use super::{Rule, Statement, family_name};
use crate::config::{Config, Family, Listen};

/// The name of the base chain.
pub const OUTPUT: &str = "output";

/// Only connections to its own addresses are forwarded, but not those to loopback addresses. They come in
/// on no interface to listen on.
pub fn rules(config: &Config, family: Family) -> Vec<Rule> {
    let jump = Statement::Jump(family_name(family).into());
    let to_address = match &config.listen {
        Listen::Local | Listen::Any => Statement::Family(family),
        Listen::Only { addresses, .. } => {
            let mut addresses = addresses.iter();
            if !addresses.any(|address| Family::of(*address) == family) {
                return Vec::new();
            }
            listens(family)
        }
    };
    vec![
        vec![Statement::LoopbackDestination(family), Statement::Return],
        vec![to_address, LOCAL, jump],
    ]
}
