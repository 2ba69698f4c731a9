//! The choice of a destination for a connection.

use super::expr::{self, Expression, REG_2, address_length, is_family, source};
use crate::config::Balance;
use crate::ruleset::{Choice, Numbers};
use nftnl::nftnl_sys::libc;

/// Goes on only if the number is one of those that match.
pub fn choose(choice: &Choice) -> Vec<Expression> {
    let Choice {
        family,
        balance,
        modulus,
        seed,
        matches,
    } = *choice;
    let mut expressions = match balance {
        Balance::Random => vec![expr::number(libc::NFT_NG_RANDOM, modulus)],
        Balance::RoundRobin => vec![expr::number(libc::NFT_NG_INCREMENTAL, modulus)],
        Balance::Source => {
            let length = address_length(family) as u32;
            let mut expressions = Vec::from(is_family(family));
            expressions.push(source(family, REG_2));
            expressions.push(expr::hash(length, modulus, seed));
            expressions
        }
    };
    match matches {
        Numbers::Is(number) => expressions.push(expr::equal(&number.to_ne_bytes())),
        Numbers::Below(end) => {
            expressions.push(expr::to_network_order(4));
            expressions.push(expr::less(&end.to_be_bytes()));
        }
    }
    expressions
}
