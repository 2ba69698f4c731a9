//! The interfaces to listen on that no packets come in on, and addresses and interfaces in several VRFs.

use super::{Finding, Level};
use crate::config::{Config, InterfaceName};
use crate::rtnetlink::{Routes, Whole};

const SUBJECT: &str = "listen";

/// What is wrong with them, and with addresses and interfaces that are in several VRFs.
pub fn findings(routes: &Routes, config: &Config) -> Vec<Finding> {
    let names = config.listen.interfaces().iter();
    let mut findings: Vec<Finding> = names.filter_map(|name| finding(routes, name)).collect();
    if routes.vrfs(&config.listen).is_ok_and(|vrfs| vrfs.len() > 1) {
        let text = "not looked at: routes in VRFs, as not all addresses and interfaces are in the same one: check the forwards with each of them alone";
        findings.push(Finding::new(Level::Unseen, SUBJECT, text));
    }
    findings
}

fn finding(routes: &Routes, name: &InterfaceName) -> Option<Finding> {
    let warning = |text| Some(Finding::new(Level::Warning, SUBJECT, text));
    let interface = routes.interface_named(name).ok()??;
    if interface.is_vrf {
        return warning(format!(
            "{name} is a VRF, and packets come in on its interfaces: list those instead"
        ));
    }
    let part_of = interface.part_of?;
    let whole = routes.interface(part_of.index).ok()??.name;
    match part_of.kind {
        Whole::Vrf => None,
        Whole::Bridge { .. } | Whole::Other => warning(format!(
            "{name} is a part of {whole}, and its packets come in on that: list {whole} instead"
        )),
    }
}
