//! `--replace`: a new process takes the place of a running instance; and HUP, which changes its rules.

mod failed_successor;
mod flows;
mod handover;
mod lock_clients;
mod peer;
mod reload;
mod starts;
mod taken_name;
mod watch;

pub use flows::REPLACEMENTS;
pub use lock_clients::{ATTEMPTS, CLAIMS, CONNECTIONS, IDLE, REFUSALS};
pub use taken_name::HANG_UPS;

use crate::fixture::{BACKEND_PORT, FORWARDED_PORT, Host, Nodefwd, addresses, nodefwd};

/// The second port that is forwarded, to the same port of the backend.
const SECOND_PORT: u16 = 90;

/// Forwards [`FORWARDED_PORT`] and [`SECOND_PORT`] of both protocols and families to a host.
fn forward_both(host: &Host) -> Nodefwd {
    nodefwd([""; 0])
        .env("NODEFWD_NAME", "web")
        .env("DEST_IPS", addresses(host))
        .env("DEST_PROTO", "TCP,UDP")
        .env("SRC_PORT", format!("{FORWARDED_PORT},{SECOND_PORT}"))
        .env("DEST_PORT", format!("{BACKEND_PORT},{SECOND_PORT}"))
}

/// The same call with `--replace`.
fn replacing(call: &Nodefwd) -> Nodefwd {
    call.clone().env("NODEFWD_REPLACE", "true")
}
