//! The names of sets and maps in an instance's table, by which it is read back.

use super::{ALLOWED, CHAINS, DROPPED, FORWARDS, LISTEN, NO_HAIRPIN, PORT_MAP, set_name};
use crate::config::Family;

/// The names of the maps of a family whose keys are the services that an instance forwards.
pub struct ServiceMaps {
    /// From single ports to addresses and ports.
    pub forwards: String,
    /// From each port of ranges that go to other ranges, to addresses and ports.
    pub port_map: String,
    /// From single ports of balanced forwards, and from ranges, to the chains of their forwards.
    pub chains: [String; 2],
    /// The services whose dropped packets are counted: by the elements of a set of single ports, and by
    /// the chains that a map of ranges leads to.
    pub dropped: [String; 2],
}

impl ServiceMaps {
    /// Those of a family.
    pub fn of(family: Family) -> Self {
        let name = |name| set_name(name, family);
        ServiceMaps {
            forwards: name(FORWARDS),
            port_map: name(PORT_MAP),
            chains: [CHAINS.0, CHAINS.1].map(name),
            dropped: [DROPPED.0, DROPPED.1].map(name),
        }
    }

    /// All maps; every service of the instance is in one of them.
    pub fn all(self) -> [String; 4] {
        let [chains, ranges] = self.chains;
        [self.forwards, self.port_map, chains, ranges]
    }
}

/// The name of the set of the addresses that an instance listens on.
pub fn listen_set_name(family: Family) -> String {
    set_name(LISTEN, family)
}

/// The name of the set of the sources that may connect to an instance.
pub fn allowed_set_name(family: Family) -> String {
    set_name(ALLOWED, family)
}

/// The names of the sets of destinations whose own connections are left alone.
pub fn no_hairpin_set_names(family: Family) -> [String; 2] {
    [NO_HAIRPIN.0, NO_HAIRPIN.1].map(|name| set_name(name, family))
}
