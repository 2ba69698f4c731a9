//! Where clients come in: on the interface of an address that is listened on, that of the route back to them,
//! or the one that `--from` names.

use super::Paths;
use crate::check::client::Client;
use crate::check::{Finding, Level};
use crate::config::{Allowed, Config, Family, Listen, OptionName, first_few, is_link_local};
use crate::rtnetlink::{Ingress, Interface, OwnAddress, Route, RtnetlinkError, unknown_client};
use ipnet::IpNet;
use std::net::IpAddr;

const SUBJECT: &str = "from";

/// How many ranges of sources are looked up, and how many clients of each.
const MAX_RANGES: usize = 16;
const MAX_CLIENTS: usize = 8;

/// An interface that clients come in on, while the route back to them is another.
pub struct Uplink {
    pub input: Interface,
    pub back: Ingress,
    /// Whether such clients surely come in there.
    pub sure: bool,
}

impl Paths {
    /// Finds out where the clients of a family come in, and which of them no route leads to.
    pub fn find_clients(&mut self, config: &Config, family: Family) -> Result<(), RtnetlinkError> {
        if let Some(client) = self.from {
            return self.find_client(client);
        }
        let sources = config.sources.of(family);
        self.unreachable[family as usize] = self.unreachable(sources, family)?;
        let back = Ingress::find(&self.routes, sources, family)?;
        let mut inputs = Vec::new();
        if *sources == Allowed::All {
            inputs = self.listened_interfaces(&config.listen, family, back.as_ref())?;
        }
        self.several[family as usize] = inputs.len() > 1;
        let is_back = |input: &&Interface| {
            back.as_ref()
                .is_some_and(|back| back.interface.index == input.index)
        };
        let ingress = match inputs.first() {
            Some(first)
                if !inputs.iter().any(|input| is_back(&input))
                    && config.listen != Listen::Local =>
            {
                Some(Ingress::new(
                    self.neighbour_on(first, family),
                    first.clone(),
                ))
            }
            _ => back.clone(),
        };
        let others = inputs.iter().filter(|input| !is_back(input));
        for (input, back) in others.zip(back.iter().cycle()) {
            self.other_uplinks.push(Uplink {
                input: input.clone(),
                back: back.clone(),
                sure: config.listen != Listen::Local
                    && (back.interface.is_tunnel || self.is_default(input, family)?),
            });
        }
        self.ingresses.extend(ingress);
        Ok(())
    }

    /// Whether a default route leads to an interface, in any routing table.
    fn is_default(&self, interface: &Interface, family: Family) -> Result<bool, RtnetlinkError> {
        let routes = self.routes.defaults(family)?;
        Ok(routes
            .iter()
            .any(|route| route.interface == interface.index))
    }

    /// The same of the only client that is followed.
    fn find_client(&mut self, client: Client) -> Result<(), RtnetlinkError> {
        let address = client.address;
        let back = match self.routes.find(address, None, None)? {
            Some(Route::Through(index)) => self.routes.interface(index)?,
            Some(Route::Local) => return Ok(()),
            None => {
                self.unreachable[client.family() as usize] = vec![address.into()];
                None
            }
        };
        let input = match client.interface {
            None => None,
            Some(name) => match self.routes.index_of(&name)? {
                None => return Ok(()),
                Some(index) => self.routes.interface(index)?,
            },
        };
        if let (Some(input), Some(back)) = (&input, &back) {
            if input.index != back.index {
                self.other_uplinks.push(Uplink {
                    input: input.clone(),
                    back: Ingress::new(address, back.clone()),
                    sure: true,
                });
            }
        }
        let ingress = input.or(back).map(|input| Ingress::new(address, input));
        self.ingresses.extend(ingress);
        Ok(())
    }

    /// The sources, of those that may connect, that there is no route to.
    fn unreachable(&self, sources: &Allowed, family: Family) -> Result<Vec<IpNet>, RtnetlinkError> {
        let mut unreachable = Vec::new();
        match sources {
            Allowed::None => {}
            Allowed::All => {
                if self
                    .routes
                    .find(unknown_client(family), None, None)?
                    .is_none()
                {
                    let all = IpNet::new(unknown_client(family), 0);
                    unreachable.extend(all.map(|all| all.trunc()));
                }
            }
            Allowed::Ranges(ranges) => {
                for range in ranges.iter().take(MAX_RANGES) {
                    let mut is_reachable = false;
                    for client in range.hosts().take(MAX_CLIENTS) {
                        is_reachable |= self.routes.find(client, None, None)?.is_some();
                    }
                    unreachable.extend((!is_reachable).then_some(*range));
                }
            }
        }
        Ok(unreachable)
    }

    /// The interfaces that clients come in on, as far as `NODEFWD_LISTEN` says so; without it, those that default
    /// routes lead to, in any routing table, and if the one in use leads into a tunnel, all that are none.
    fn listened_interfaces(
        &self,
        listen: &Listen,
        family: Family,
        back: Option<&Ingress>,
    ) -> Result<Vec<Interface>, RtnetlinkError> {
        let into_tunnel = back.is_some_and(|back| back.interface.is_tunnel);
        let defaults = self.routes.defaults(family)?;
        let has_default = |index| defaults.iter().any(|route| route.interface == index);
        let is_meant = |own: &&OwnAddress| match listen {
            Listen::Any => false,
            Listen::Local => {
                (into_tunnel || has_default(own.interface)) && !is_link_local(own.address)
            }
            Listen::Only { addresses, .. } => addresses.contains(&own.address),
        };
        let of_family = self
            .own
            .iter()
            .filter(|own| Family::of(own.address) == family);
        let mut indices: Vec<u32> = of_family
            .filter(is_meant)
            .map(|own| own.interface)
            .collect();
        for name in listen.interfaces() {
            indices.extend(self.routes.index_of(name)?);
        }
        indices.sort();
        indices.dedup();
        let mut interfaces = Vec::new();
        for index in indices {
            let interface = self.routes.interface(index)?;
            // Nothing comes in on an interface that only holds addresses.
            interfaces.extend(interface.filter(|found| {
                !found.holds_addresses_only
                    && (*listen != Listen::Local || !found.is_tunnel && found.vrf().is_none())
            }));
        }
        Ok(interfaces)
    }

    /// An address that a client on an interface's own link has; of another network, if no such address is
    /// known.
    fn neighbour_on(&self, interface: &Interface, family: Family) -> IpAddr {
        let here = self.own.iter().filter(|own| {
            own.interface == interface.index
                && Family::of(own.address) == family
                && !is_link_local(own.address)
        });
        let mut hosts = here.flat_map(|own| own.network.hosts().take(MAX_CLIENTS));
        let is_client = |address: &IpAddr| {
            let route = self.routes.find(*address, None, None);
            matches!(route, Ok(Some(Route::Through(index))) if index == interface.index)
        };
        hosts.find(is_client).unwrap_or(unknown_client(family))
    }

    /// Whether the client that is followed may connect, and where it comes in.
    pub fn followed_client(&self, config: &Config) -> Option<Finding> {
        let client = self.from?;
        let failure = |text: String| Some(Finding::new(Level::Failure, SUBJECT, text));
        let address = client.address;
        if let Some(problem) = self.problem_of(&client, config) {
            return failure(problem);
        }
        let way = match self.ingress(client.family()) {
            None if self.is_own(address) => {
                format!("is made on this host, which {} allows", OptionName::OUTPUT)
            }
            None => {
                return failure(format!(
                    "it is not known where {address} comes in: there is no route back to it"
                ));
            }
            Some(ingress) => format!("comes in on {}", ingress.interface.name),
        };
        let text = format!("{address} may connect, and {way}");
        Some(Finding::new(Level::Ok, SUBJECT, text))
    }

    /// Why connections of a client are not forwarded.
    fn problem_of(&self, client: &Client, config: &Config) -> Option<String> {
        let address = client.address;
        let family = client.family();
        if !config.forwards_family(family) {
            return Some(format!("{address}: nothing is forwarded over {family}"));
        }
        if is_link_local(address) {
            return Some(format!(
                "{address} is a link-local address, which no router forwards packets from: connect from another address, to another address"
            ));
        }
        if address.is_loopback() || self.is_own(address) && !config.output {
            return Some(format!(
                "{address} is this host itself: its own connections are forwarded only with {} set to true, and never those to loopback addresses; try from another host",
                OptionName::OUTPUT
            ));
        }
        if !config.sources.of(family).contains(address) {
            return Some(format!(
                "{} does not list {address}: its packets are dropped",
                OptionName::SRC_RANGES
            ));
        }
        let name = client.interface.as_ref();
        if let Some(name) = name.filter(|name| matches!(self.routes.index_of(name), Ok(None))) {
            return Some(format!(
                "there is no interface {name} for {address} to come in on"
            ));
        }
        if let Some(name) = name.filter(|_| matches!(config.listen, Listen::Only { .. })) {
            let mut addresses = config.listen.addresses().iter();
            let to_address = addresses.any(|listened| Family::of(*listened) == family);
            if !to_address && !config.listen.interfaces().contains(name) {
                return Some(format!(
                    "{address} comes in on {name}, which {} does not list",
                    OptionName::LISTEN
                ));
            }
        }
        let is_destination = |forward: &&crate::config::Forward| {
            forward.destinations.iter().any(|to| to.address == address)
        };
        let own: Vec<_> = config.reachable_forwards().filter(is_destination).collect();
        let services = first_few(own.iter().map(|forward| forward.service));
        if !own.is_empty() && !config.hairpin {
            return Some(format!(
                "{address} is a destination of {services}: its own connections there are forwarded only with {} set to true",
                OptionName::HAIRPIN
            ));
        }
        if !own.is_empty() && !config.masquerade {
            return Some(format!(
                "{address} is a destination of {services}, and would reply to itself past this host: set {} to true",
                OptionName::MASQUERADE
            ));
        }
        None
    }
}
