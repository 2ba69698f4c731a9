//! Replacing a live instance with `--replace`.

mod failed_successor;
mod flows;
mod handover;
mod starts;

use crate::fixture::{BACK, FRONT};
use crate::fixture::{Family, Host, Namespace, Nodefwd, nodefwd};

/// The second port that is forwarded.
const COUNTED: u16 = 90;

/// Forwards [`FRONT`] and [`COUNTED`] of both protocols and families to a host.
fn forward_both(host: &Host) -> Nodefwd {
    let destinations = Family::BOTH.map(|family| host.address(family).to_string());
    nodefwd([""; 0])
        .env("NODEFWD_NAME", "web")
        .env("DEST_IPS", destinations.join(","))
        .env("DEST_PROTO", "TCP,UDP")
        .env("SRC_PORT", format!("{FRONT},{COUNTED}"))
        .env("DEST_PORT", format!("{BACK},{COUNTED}"))
}

fn replacing(call: &Nodefwd) -> Nodefwd {
    call.clone().env("NODEFWD_REPLACE", "true")
}

/// All rules, without what they have counted.
fn rules(node: &Namespace) -> String {
    node.succeed("nft", &["--stateless", "list", "ruleset"])
}
