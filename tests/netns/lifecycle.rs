//! One instance from its start to its end: what it needs and uses, what it reports, and what is left
//! of it.

mod crash;
mod forwarding_off;
mod notify;
mod privileges;
mod start_and_stop;
mod without_owner_flag;
