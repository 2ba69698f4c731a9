//! Flowtables, of all tables at once.

use super::chain::device_names;
use super::{Table, TableFamily, dump_request_of_all};
use crate::netlink::{Failure, Message, Socket};
use crate::uapi::*;

/// A flowtable in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowtableInfo {
    pub table: Table,
    pub name: String,
    /// The interfaces that it takes packets of.
    pub devices: Vec<String>,
}

/// All flowtables of this network namespace.
pub fn flowtables(socket: &Socket) -> Result<Vec<FlowtableInfo>, Failure> {
    socket.list(&dump_request_of_all(NFT_MSG_GETFLOWTABLE), flowtable)
}

fn flowtable(message: &Message<'_>) -> Option<FlowtableInfo> {
    let attributes = message.attributes();
    let hook = attributes.nested(NFTA_FLOWTABLE_HOOK);
    Some(FlowtableInfo {
        table: Table {
            family: TableFamily::of(message)?,
            name: attributes.name(NFTA_FLOWTABLE_TABLE)?,
        },
        name: attributes.name(NFTA_FLOWTABLE_NAME)?,
        devices: device_names(hook.nested(NFTA_FLOWTABLE_HOOK_DEVS)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{any_messages, messages};
    use crate::nftables::flowtable::add_flowtable;
    use crate::ruleset::{FAST_PATH, Flowtable};

    /// The kernel sends what it was sent.
    #[test]
    fn a_flowtable_reads_back() {
        let devices = ["lan0", "wan0"];
        let sent = Flowtable {
            name: FAST_PATH,
            devices: devices.map(|name| name.parse().unwrap()).into(),
        };
        let request = add_flowtable("nodefwd-web", &sent);
        let read: Vec<_> = messages(request.bytes())
            .filter_map(|it| flowtable(&it))
            .collect();
        let expected = FlowtableInfo {
            table: Table::inet("nodefwd-web"),
            name: FAST_PATH.into(),
            devices: devices.map(str::to_owned).into(),
        };
        assert_eq!(read, [expected]);
    }

    #[test]
    fn no_message_panics() {
        any_messages(4, |message| {
            flowtable(message);
        });
    }
}
