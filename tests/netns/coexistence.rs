//! Other instances and other programs with rules in the same network namespace.

mod other_firewalls;
mod shared_backend;
mod siblings;
