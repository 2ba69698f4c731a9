//! Numbers of the kernel's interface (include/uapi/linux) that the libc crate lacks, under the
//! kernel's own names.

// netlink.h
pub const NLMSGERR_ATTR_OFFS: u16 = 2;

// netfilter/nf_tables.h: tables
pub const NFT_TABLE_F_DORMANT: u32 = 1 << 0;
/// Since Linux 5.12.
pub const NFT_TABLE_F_OWNER: u32 = 1 << 1;
pub const NFTA_TABLE_NAME: u16 = 1;
pub const NFTA_TABLE_FLAGS: u16 = 2;
/// Since Linux 4.17.
pub const NFTA_TABLE_HANDLE: u16 = 4;
pub const NFTA_TABLE_OWNER: u16 = 7;
pub const NFTA_GEN_ID: u16 = 1;

// netfilter/nf_tables.h: chains
pub const NFTA_CHAIN_TABLE: u16 = 1;
pub const NFTA_CHAIN_NAME: u16 = 3;
pub const NFTA_CHAIN_HOOK: u16 = 4;
pub const NFTA_CHAIN_POLICY: u16 = 5;
pub const NFTA_CHAIN_USE: u16 = 6;
pub const NFTA_CHAIN_TYPE: u16 = 7;
pub const NFTA_HOOK_HOOKNUM: u16 = 1;
pub const NFTA_HOOK_PRIORITY: u16 = 2;
pub const NFTA_HOOK_DEV: u16 = 3;
pub const NFTA_HOOK_DEVS: u16 = 4;
/// Since Linux 6.16.
pub const NFTA_DEVICE_PREFIX: u16 = 2;

/// How deep chains may lead to each other (include/net/netfilter/nf_tables.h).
pub const NFT_JUMP_STACK_SIZE: usize = 16;

// netfilter/nf_tables.h: flowtables
pub const NFT_MSG_NEWFLOWTABLE: i32 = 22;
pub const NFT_MSG_GETFLOWTABLE: i32 = 23;
pub const NFT_MSG_DELFLOWTABLE: i32 = 24;
pub const NFT_FLOWTABLE_COUNTER: u32 = 1 << 1;
pub const NFTA_FLOWTABLE_TABLE: u16 = 1;
pub const NFTA_FLOWTABLE_NAME: u16 = 2;
pub const NFTA_FLOWTABLE_HOOK: u16 = 3;
/// Since Linux 5.7.
pub const NFTA_FLOWTABLE_FLAGS: u16 = 7;
pub const NFTA_FLOWTABLE_HOOK_NUM: u16 = 1;
pub const NFTA_FLOWTABLE_HOOK_PRIORITY: u16 = 2;
pub const NFTA_FLOWTABLE_HOOK_DEVS: u16 = 3;
pub const NFTA_DEVICE_NAME: u16 = 1;

// netfilter.h
pub const NF_NETDEV_INGRESS: u32 = 0;

// netfilter_ipv4.h
pub const NF_IP_PRI_SECURITY: i32 = 50;

// netfilter/nf_tables.h: rules
pub const NFTA_RULE_TABLE: u16 = 1;
pub const NFTA_RULE_CHAIN: u16 = 2;
pub const NFTA_RULE_HANDLE: u16 = 3;
pub const NFTA_RULE_EXPRESSIONS: u16 = 4;

// netfilter/nf_tables.h: sets and their elements
pub const NFT_SET_CONCAT: u32 = 1 << 7;
pub const NFTA_SET_TABLE: u16 = 1;
pub const NFTA_SET_NAME: u16 = 2;
pub const NFTA_SET_FLAGS: u16 = 3;
pub const NFTA_SET_KEY_TYPE: u16 = 4;
pub const NFTA_SET_KEY_LEN: u16 = 5;
pub const NFTA_SET_DATA_TYPE: u16 = 6;
pub const NFTA_SET_DATA_LEN: u16 = 7;
pub const NFTA_SET_DESC: u16 = 9;
pub const NFTA_SET_ID: u16 = 10;
pub const NFTA_SET_USERDATA: u16 = 13;
/// Since Linux 5.7.
pub const NFTA_SET_EXPR: u16 = 17;
pub const NFTA_SET_DESC_SIZE: u16 = 1;
pub const NFTA_SET_DESC_CONCAT: u16 = 2;
pub const NFTA_SET_FIELD_LEN: u16 = 1;
pub const NFT_SET_ELEM_INTERVAL_END: u32 = 1 << 0;
/// Since Linux 5.13.
pub const NFT_SET_ELEM_CATCHALL: u32 = 1 << 1;
pub const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub const NFTA_SET_ELEM_LIST_SET_ID: u16 = 4;
pub const NFTA_LIST_ELEM: u16 = 1;
pub const NFTA_SET_ELEM_KEY: u16 = 1;
pub const NFTA_SET_ELEM_DATA: u16 = 2;
pub const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub const NFTA_SET_ELEM_EXPR: u16 = 7;
pub const NFTA_SET_ELEM_KEY_END: u16 = 10;
pub const NFTA_DATA_VALUE: u16 = 1;
pub const NFTA_DATA_VERDICT: u16 = 2;
pub const NFTA_VERDICT_CODE: u16 = 1;
pub const NFTA_VERDICT_CHAIN: u16 = 2;

// netfilter/nf_tables.h: expressions
pub const NFTA_EXPR_NAME: u16 = 1;
pub const NFTA_EXPR_DATA: u16 = 2;
pub const NFTA_BITWISE_SREG: u16 = 1;
pub const NFTA_BITWISE_DREG: u16 = 2;
pub const NFTA_BITWISE_LEN: u16 = 3;
pub const NFTA_BITWISE_MASK: u16 = 4;
pub const NFTA_BITWISE_XOR: u16 = 5;
pub const NFTA_BITWISE_OP: u16 = 6;
pub const NFT_BITWISE_MASK_XOR: u32 = 0;
pub const NFTA_CMP_SREG: u16 = 1;
pub const NFTA_CMP_OP: u16 = 2;
pub const NFTA_CMP_DATA: u16 = 3;
pub const NFTA_COUNTER_BYTES: u16 = 1;
pub const NFTA_COUNTER_PACKETS: u16 = 2;
pub const NFTA_CT_DREG: u16 = 1;
pub const NFTA_CT_KEY: u16 = 2;
pub const NFTA_CT_DIRECTION: u16 = 3;
pub const NFTA_CT_SREG: u16 = 4;
pub const NFT_RT_TCPMSS: u32 = 3;
pub const NFT_EXTHDR_OP_TCPOPT: u32 = 1;
pub const NFTA_FIB_DREG: u16 = 1;
pub const NFTA_FIB_RESULT: u16 = 2;
pub const NFTA_FIB_FLAGS: u16 = 3;
pub const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
pub const NFT_FIB_RESULT_OIF: u32 = 1;
pub const NFTA_FIB_F_SADDR: u32 = 1 << 0;
pub const NFTA_FIB_F_DADDR: u32 = 1 << 1;
pub const NFTA_FIB_F_MARK: u32 = 1 << 2;
pub const NFTA_FIB_F_IIF: u32 = 1 << 3;
pub const NFTA_FIB_F_PRESENT: u32 = 1 << 5;
pub const NFT_HASH_JENKINS: u32 = 0;
pub const NFTA_IMMEDIATE_DREG: u16 = 1;
pub const NFTA_IMMEDIATE_DATA: u16 = 2;
pub const NFTA_LOOKUP_SET: u16 = 1;
pub const NFTA_LOOKUP_SREG: u16 = 2;
pub const NFTA_LOOKUP_DREG: u16 = 3;
pub const NFTA_LOOKUP_FLAGS: u16 = 5;
pub const NFTA_MASQ_FLAGS: u16 = 1;
pub const NFT_META_IIFKIND: i32 = 26;
pub const NFT_META_OIFKIND: i32 = 27;
/// Since Linux 5.6.
pub const NFT_META_SDIFNAME: i32 = 34;
pub const NFTA_META_DREG: u16 = 1;
pub const NFTA_META_KEY: u16 = 2;
pub const NFTA_NAT_TYPE: u16 = 1;
pub const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
pub const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
pub const NFTA_NG_TYPE: u16 = 3;
pub const NFTA_PAYLOAD_DREG: u16 = 1;
pub const NFTA_PAYLOAD_BASE: u16 = 2;
pub const NFTA_PAYLOAD_OFFSET: u16 = 3;
pub const NFTA_PAYLOAD_LEN: u16 = 4;
pub const NFTA_PAYLOAD_SREG: u16 = 5;
pub const NFTA_OBJREF_IMM_TYPE: u16 = 1;
pub const NFT_OBJECT_COUNTER: u32 = 1;
pub const NFT_OBJECT_CT_HELPER: u32 = 3;
pub const NFT_OBJECT_TUNNEL: u32 = 6;
pub const NFT_OBJECT_CT_TIMEOUT: u32 = 7;
pub const NFT_OBJECT_SECMARK: u32 = 8;
pub const NFT_OBJECT_CT_EXPECT: u32 = 9;
pub const NFT_OBJECT_SYNPROXY: u32 = 10;
pub const NFTA_RANGE_SREG: u16 = 1;
pub const NFTA_RANGE_OP: u16 = 2;
pub const NFTA_RANGE_FROM_DATA: u16 = 3;
pub const NFTA_RANGE_TO_DATA: u16 = 4;

// netfilter/nf_tables_compat.h: a match and a target have the same attributes
pub const NFTA_MATCH_NAME: u16 = 1;
pub const NFTA_MATCH_REV: u16 = 2;
pub const NFTA_MATCH_INFO: u16 = 3;
pub const NFTA_TARGET_NAME: u16 = 1;
pub const NFTA_TARGET_INFO: u16 = 3;

// netfilter/xt_CT.h
pub const XT_CT_NOTRACK: u16 = 1 << 0;
pub const XT_CT_ZONE_MARK: u16 = 1 << 4;

// netfilter/xt_tcpudp.h: XT_UDP_INV_* are the same
pub const XT_TCP_INV_SRCPT: u8 = 1 << 0;
pub const XT_TCP_INV_DSTPT: u8 = 1 << 1;
pub const XT_TCP_INV_FLAGS: u8 = 1 << 2;

// netfilter/xt_multiport.h
pub const XT_MULTIPORT_SOURCE: u8 = 0;
pub const XT_MULTIPORT_DESTINATION: u8 = 1;
pub const XT_MULTI_PORTS: usize = 15;

// netfilter/xt_conntrack.h
pub const XT_CONNTRACK_STATE_DNAT: u16 = 1 << 7;
pub const XT_CONNTRACK_STATE: u16 = 1 << 0;
pub const XT_CONNTRACK_PROTO: u16 = 1 << 1;
pub const XT_CONNTRACK_STATUS: u16 = 1 << 6;
pub const XT_CONNTRACK_ORIGDST_PORT: u16 = 1 << 9;
pub const XT_CONNTRACK_DIRECTION: u16 = 1 << 12;
pub const XT_CONNTRACK_STATE_ALIAS: u16 = 1 << 13;

// netfilter/xt_addrtype.h
pub const XT_ADDRTYPE_INVERT_DEST: u32 = 1 << 1;
pub const XT_ADDRTYPE_LIMIT_IFACE_IN: u32 = 1 << 2;
pub const XT_ADDRTYPE_LIMIT_IFACE_OUT: u32 = 1 << 3;
pub const XT_ADDRTYPE_UNICAST: u16 = 1 << 1;
pub const XT_ADDRTYPE_LOCAL: u16 = 1 << 2;

// netfilter/nf_nat.h
pub const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;

// netfilter/nf_conntrack_common.h
pub const IP_CT_DIR_ORIGINAL: u8 = 0;
/// The kernel has no number of `enum ip_conntrack_info` for it: the packet has no entry.
pub const NF_CT_STATE_INVALID_BIT: u32 = 1 << 0;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`
pub const NF_CT_STATE_ESTABLISHED_BIT: u32 = 1 << 1;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`
pub const NF_CT_STATE_NEW_BIT: u32 = 1 << 3;
pub const IPS_SEEN_REPLY: u32 = 1 << 1;
pub const IPS_CONFIRMED: u32 = 1 << 3;
pub const IPS_SRC_NAT: u32 = 1 << 4;
pub const IPS_DST_NAT: u32 = 1 << 5;
pub const IPS_DST_NAT_DONE: u32 = 1 << 8;
pub const IPS_OFFLOAD: u32 = 1 << 14;

// netfilter/nf_conntrack_tcp.h, nf_conntrack_sctp.h
pub const TCP_CONNTRACK_ESTABLISHED: u8 = 3;
pub const TCP_CONNTRACK_TIME_WAIT: u8 = 7;
pub const TCP_CONNTRACK_CLOSE: u8 = 8;
pub const IP_CT_TCP_FLAG_MAXACK_SET: u8 = 0x20;
pub const SCTP_CONNTRACK_CLOSED: u8 = 1;

// netfilter/nfnetlink_conntrack.h
pub const IPCTNL_MSG_CT_NEW: u16 = 0;
pub const IPCTNL_MSG_CT_GET: u16 = 1;
pub const IPCTNL_MSG_CT_DELETE: u16 = 2;
pub const CTA_TUPLE_ORIG: u16 = 1;
pub const CTA_TUPLE_REPLY: u16 = 2;
pub const CTA_STATUS: u16 = 3;
pub const CTA_PROTOINFO: u16 = 4;
pub const CTA_TIMEOUT: u16 = 7;
pub const CTA_ID: u16 = 12;
pub const CTA_ZONE: u16 = 18;
/// Since Linux 5.8.
pub const CTA_FILTER: u16 = 25;
/// Since Linux 5.15.
pub const CTA_STATUS_MASK: u16 = 26;
pub const CTA_FILTER_ORIG_FLAGS: u16 = 1;
pub const CTA_FILTER_REPLY_FLAGS: u16 = 2;
pub const CTA_TUPLE_IP: u16 = 1;
pub const CTA_TUPLE_PROTO: u16 = 2;
pub const CTA_IP_V4_SRC: u16 = 1;
pub const CTA_IP_V4_DST: u16 = 2;
pub const CTA_IP_V6_SRC: u16 = 3;
pub const CTA_IP_V6_DST: u16 = 4;
pub const CTA_PROTO_NUM: u16 = 1;
pub const CTA_PROTO_SRC_PORT: u16 = 2;
pub const CTA_PROTO_DST_PORT: u16 = 3;
pub const CTA_PROTOINFO_TCP: u16 = 1;
pub const CTA_PROTOINFO_SCTP: u16 = 3;
pub const CTA_PROTOINFO_TCP_STATE: u16 = 1;
pub const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
pub const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;
pub const CTA_PROTOINFO_SCTP_STATE: u16 = 1;

// net/netfilter/nf_internals.h: flags of CTA_FILTER_ORIG_FLAGS and _REPLY_FLAGS, in host byte order
pub const CTA_FILTER_F_CTA_PROTO_NUM: u32 = 1 << 3;
pub const CTA_FILTER_F_CTA_PROTO_DST_PORT: u32 = 1 << 5;

// rtnetlink.h
pub const RTA_IP_PROTO: u16 = 27;
pub const RTA_SPORT: u16 = 28;
pub const RTA_DPORT: u16 = 29;
pub const RTPROT_RA: u8 = 9;
pub const RTAX_MTU: u16 = 2;
pub const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

// if_link.h, ip.h
pub const IFLA_MTU: u16 = 4;
pub const IFLA_LINK: u16 = 5;
pub const IFLA_MASTER: u16 = 10;
pub const IFLA_LINKINFO: u16 = 18;
pub const IFLA_INFO_KIND: u16 = 1;
pub const IFLA_INFO_DATA: u16 = 2;
pub const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub const IFLA_INFO_SLAVE_DATA: u16 = 5;
pub const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
pub const IFLA_BR_NF_CALL_IP6TABLES: u16 = 37;
pub const IFLA_BRPORT_MODE: u16 = 4;
pub const IFLA_AF_SPEC: u16 = 26;
pub const IFLA_INET_CONF: u16 = 1;
pub const IPV4_DEVCONF_FORWARDING: usize = 1;

pub const IFLA_XDP: u16 = 43;
pub const IFLA_XDP_ATTACHED: u16 = 2;

// if_arp.h
pub const ARPHRD_IP6GRE: u16 = 823;

// fib_rules.h
pub const FRA_FWMARK: u16 = 10;

// xfrm.h
pub const XFRM_MSG_GETPOLICY: u16 = 0x15;
pub const XFRM_POLICY_OUT: u8 = 1;
pub const XFRM_POLICY_FWD: u8 = 2;

// netconf.h
pub const NETCONFA_IFINDEX: u16 = 1;
pub const NETCONFA_FORWARDING: u16 = 2;
pub const NETCONFA_IFINDEX_ALL: i32 = -1;

// sock_diag.h
pub const SOCK_DIAG_BY_FAMILY: u16 = 20;

// inet_diag.h
pub const INET_DIAG_SKV6ONLY: u16 = 11;

// unix_diag.h
pub const UDIAG_SHOW_NAME: u32 = 1 << 0;
/// Since Linux 5.3.
pub const UDIAG_SHOW_UID: u32 = 1 << 6;
pub const UNIX_DIAG_NAME: u16 = 0;
pub const UNIX_DIAG_UID: u16 = 7;

// net/tcp_states.h
pub const TCP_ESTABLISHED: u8 = 1;
pub const TCP_CLOSE: u8 = 7;
pub const TCP_LISTEN: u8 = 10;
