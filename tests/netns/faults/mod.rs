//! What can go wrong around it, tried as often as the README's table says, and that nothing is lost.

mod floods;
mod forgery;
mod input;
mod netlink;
mod options;
mod right;
