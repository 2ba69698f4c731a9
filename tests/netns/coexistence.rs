//! Other instances and other programs with rules in the same network namespace.

mod hostile_status;
mod other_firewalls;
mod shared_backend;
mod siblings;

pub use hostile_status::{DESTINATIONS, ELEMENTS, FORWARDS, NAMES, SERVICES, TABLES};
