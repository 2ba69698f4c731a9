//! Flowtables → messages. nftnl has no type for them.

use super::list::message_type;
use crate::netlink::Request;
use crate::ruleset::Flowtable;
use crate::uapi::*;
use nix::libc;

/// The message that adds a flowtable, or its interfaces to one of its name: those that it has already make no
/// difference (nft_flowtable_update in net/netfilter/nf_tables_api.c).
pub fn add_flowtable(table: &str, flowtable: &Flowtable) -> Request {
    let flags = libc::NLM_F_CREATE as u16;
    let devices = flowtable.devices.iter();
    message(NFT_MSG_NEWFLOWTABLE, flags, table, flowtable)
        .nest(NFTA_FLOWTABLE_HOOK, |hook| {
            hook.u32(NFTA_FLOWTABLE_HOOK_NUM, NF_NETDEV_INGRESS)
                .u32(NFTA_FLOWTABLE_HOOK_PRIORITY, 0)
                .nest(NFTA_FLOWTABLE_HOOK_DEVS, |list| {
                    devices.fold(list, |list, device| {
                        list.text(NFTA_DEVICE_NAME, &device.to_string())
                    })
                })
        })
        // Or the counters of connections (net.netfilter.nf_conntrack_acct) would stand still.
        .u32(NFTA_FLOWTABLE_FLAGS, NFT_FLOWTABLE_COUNTER)
}

/// The message that deletes a flowtable. No rule may need it any more.
pub fn delete_flowtable(table: &str, flowtable: &Flowtable) -> Request {
    message(NFT_MSG_DELFLOWTABLE, 0, table, flowtable)
}

fn message(message: i32, flags: u16, table: &str, flowtable: &Flowtable) -> Request {
    Request::new(message_type(message), flags, libc::NFPROTO_INET as u8, 0)
        .text(NFTA_FLOWTABLE_TABLE, table)
        .text(NFTA_FLOWTABLE_NAME, flowtable.name)
}
