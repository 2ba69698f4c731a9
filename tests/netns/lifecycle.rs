//! One instance from its start to its end: what it needs and uses, what it reports, and what is left
//! of it.

mod blocked_log;
mod crash;
mod forwarding_off;
mod forwarding_switched;
mod journal;
mod logging;
mod notify;
mod privileges;
mod resources;
mod start_and_stop;
mod user_namespace;
mod without_owner_flag;

pub use blocked_log::{KINDS, WAYS};
pub use crash::KILLS;
pub use forwarding_off::HIDDEN;
