//! Ruleset → text for nft(8).

use super::{
    AddressType, Chain, Choice, Dnat, Element, Field, FieldType, Flowtable, Hook, Numbers, Ruleset,
    Set, SourcePort, Statement, Value, ValueType,
};
use crate::config::{Balance, Family};
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.table)?;
        if self.owner {
            writeln!(
                f,
                "\t# The kernel deletes this table when the process that loaded it ends. nft -f ends at once:"
            )?;
            writeln!(f, "\t# to keep the table, remove the next line.")?;
            writeln!(f, "\tflags owner")?;
        }
        // An empty line between two parts.
        let mut between = if self.owner { "\n" } else { "" };
        let sets = self.sets.iter().map(|set| set as &dyn Display);
        let flowtable = self.flowtable.iter().map(|it| it as &dyn Display);
        let chains = self.chains.iter().map(|chain| chain as &dyn Display);
        for part in sets.chain(flowtable).chain(chains) {
            writeln!(f, "{between}{part}")?;
            between = "\n";
        }
        writeln!(f, "}}")
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = if self.values.is_some() { "map" } else { "set" };
        writeln!(f, "\t{kind} {} {{", self.name)?;
        write!(f, "\t\ttype {}", Separated(" . ", &self.key))?;
        match self.values {
            Some(values) => writeln!(f, " : {values}")?,
            None => writeln!(f)?,
        }
        if self.interval {
            writeln!(f, "\t\tflags interval")?;
        }
        if let Some(size) = self.size() {
            writeln!(f, "\t\tsize {size}")?;
        }
        if self.counter {
            writeln!(f, "\t\tcounter")?;
        }
        let elements = Separated(",\n\t\t\t", &self.elements);
        writeln!(f, "\t\telements = {{\n\t\t\t{elements}\n\t\t}}")?;
        f.write_str("\t}")
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Separated(" . ", &self.key).fmt(f)?;
        match &self.value {
            Some(Value::Goto(chain)) => write!(f, " : goto {chain}"),
            Some(Value::Backend(address, port)) => write!(f, " : {address} . {port}"),
            None => Ok(()),
        }
    }
}

impl Display for FieldType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FieldType::Ipv4Addr => "ipv4_addr",
            FieldType::Ipv6Addr => "ipv6_addr",
            FieldType::InetProto => "inet_proto",
            FieldType::InetService => "inet_service",
            FieldType::Ifname => "ifname",
        })
    }
}

impl Display for ValueType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ValueType::Verdict => f.write_str("verdict"),
            ValueType::Backend(family) => {
                let address = FieldType::address(*family);
                write!(f, "{address} . {}", FieldType::InetService)
            }
        }
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Field::Network(network) => network.fmt(f),
            Field::Address(address) => address.fmt(f),
            Field::Protocol(protocol) => protocol.fmt(f),
            Field::Ports(ports) => ports.fmt(f),
            Field::Interface(name) => write!(f, "\"{name}\""),
        }
    }
}

impl Display for Flowtable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let devices: Vec<_> = self.devices.iter().copied().map(Field::Interface).collect();
        writeln!(f, "\tflowtable {} {{", self.name)?;
        writeln!(f, "\t\thook ingress priority filter")?;
        writeln!(f, "\t\tdevices = {{ {} }}", Separated(", ", &devices))?;
        writeln!(f, "\t\tcounter")?;
        f.write_str("\t}")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\t# {}", self.title)?;
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(hook) = self.hook {
            writeln!(f, "\t\t{hook}")?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{}", Separated(" ", rule))?;
        }
        f.write_str("\t}")
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // nft takes the name dstnat at the prerouting hook only.
        f.write_str(match self {
            Hook::Prerouting => "type nat hook prerouting priority dstnat; policy accept;",
            Hook::Input => "type filter hook input priority filter - 10; policy accept;",
            Hook::Forward => "type filter hook forward priority filter - 10; policy accept;",
            Hook::FastPath => "type filter hook forward priority security + 10; policy accept;",
            Hook::Output => "type nat hook output priority -100; policy accept;",
            Hook::Mangle => "type filter hook postrouting priority mangle; policy accept;",
            Hook::Postrouting => "type nat hook postrouting priority srcnat; policy accept;",
        })
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Family(Family::Ipv4) => f.write_str("meta nfproto ipv4"),
            Statement::Family(Family::Ipv6) => f.write_str("meta nfproto ipv6"),
            Statement::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Statement::DestinationType(kind) => f.write_str(match kind {
                AddressType::Local => "fib daddr type local",
                AddressType::Broadcast => "fib daddr type broadcast",
                AddressType::Multicast => "fib daddr type multicast",
            }),
            Statement::LocalToInterface => f.write_str("fib daddr . iif type local"),
            Statement::FromBridge => f.write_str("meta iifkind \"bridge\""),
            Statement::FromBridgeToBridge => {
                f.write_str("meta iifkind \"bridge\" meta oifkind \"bridge\"")
            }
            Statement::WouldTurnBack => f.write_str("fib daddr . iif oif != 0"),
            Statement::ToOthers => f.write_str("fib daddr type != local"),
            Statement::SourceIsElsewhere => f.write_str("fib saddr . iif oif 0"),
            Statement::VrfInterfaceIn(set) => write!(f, "meta sdifname @{set}"),
            Statement::InterfaceIn(set) => write!(f, "iifname @{set}"),
            Statement::LoopbackDestination(Family::Ipv4) => f.write_str("ip daddr 127.0.0.0/8"),
            Statement::LoopbackDestination(Family::Ipv6) => f.write_str("ip6 daddr ::1"),
            Statement::LinkLocalDestination => f.write_str("ip6 daddr fe80::/10"),
            Statement::DestinationIn(family, set) => write!(f, "{} daddr @{set}", ip(*family)),
            Statement::SourceIn(family, set) => write!(f, "{} saddr @{set}", ip(*family)),
            Statement::SourceNotIn(family, set) => write!(f, "{} saddr != @{set}", ip(*family)),
            Statement::SourceAndServiceIn(family, set) => {
                write!(f, "th dport . meta l4proto . {} saddr @{set}", ip(*family))
            }
            Statement::ServiceIn(set) => write!(f, "th dport . meta l4proto @{set}"),
            Statement::ServiceVmap(map) => write!(f, "th dport . meta l4proto vmap @{map}"),
            Statement::Choose(choice) => choice.fmt(f),
            Statement::Translated => f.write_str("ct status dnat"),
            Statement::Original => f.write_str("ct direction original"),
            Statement::Established => f.write_str("ct state established"),
            Statement::Invalid => f.write_str("ct state invalid"),
            Statement::TcpSynOrRst => f.write_str("tcp flags & (syn | rst) != 0"),
            Statement::FromBackendIn(family, set) => {
                write!(f, "th sport . meta l4proto . {} saddr @{set}", ip(*family))
            }
            Statement::BackendIn(family, set) => {
                write!(f, "th dport . meta l4proto . {} daddr @{set}", ip(*family))
            }
            Statement::Counter => f.write_str("counter"),
            Statement::Drop => f.write_str("drop"),
            Statement::Return => f.write_str("return"),
            Statement::Jump(chain) => write!(f, "jump {chain}"),
            Statement::Goto(chain) => write!(f, "goto {chain}"),
            Statement::FlowAdd(flowtable) => write!(f, "flow add @{flowtable}"),
            Statement::Dnat(to) => to.fmt(f),
            Statement::Masquerade(SourcePort::Kept) => f.write_str("masquerade"),
            Statement::Masquerade(SourcePort::FullyRandom) => {
                f.write_str("masquerade fully-random")
            }
            Statement::TcpSyn => f.write_str("tcp flags syn"),
            Statement::ClampMss => f.write_str("tcp option maxseg size set rt mtu"),
        }
    }
}

impl Display for Dnat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Dnat::SamePort(address) => write!(f, "dnat {} to {address}", ip(Family::of(*address))),
            Dnat::Port(address, port) => {
                let backend = SocketAddr::new(*address, *port);
                write!(f, "dnat {} to {backend}", ip(Family::of(*address)))
            }
            Dnat::Map(family, map) => {
                write!(
                    f,
                    "dnat {} to th dport . meta l4proto map @{map}",
                    ip(*family)
                )
            }
        }
    }
}

impl Display for Choice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Choice {
            family,
            balance,
            modulus,
            seed,
            matches,
        } = self;
        match balance {
            Balance::Random => write!(f, "numgen random mod {modulus}")?,
            Balance::RoundRobin => write!(f, "numgen inc mod {modulus}")?,
            Balance::Source => {
                let ip = ip(*family);
                write!(f, "jhash {ip} saddr mod {modulus} seed {seed:#x}")?;
            }
        }
        match matches {
            Numbers::Is(number) => write!(f, " {number}"),
            Numbers::Below(end) => write!(f, " < {end}"),
        }
    }
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    }
}

/// Values with something between them.
struct Separated<'a, T>(&'static str, &'a [T]);

impl<T: Display> Display for Separated<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, value) in self.1.iter().enumerate() {
            if index > 0 {
                f.write_str(self.0)?;
            }
            value.fmt(f)?;
        }
        Ok(())
    }
}
