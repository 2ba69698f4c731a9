//! The other instances in this network namespace, as the kernel shows them.

use super::socket::{Failure, Socket};
use super::table::{self, Element, TableInfo};
use crate::config::{Family, PortRange, Protocol};
use crate::ruleset::{Claim, Claims, TABLE_PREFIX, claiming_set_names};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The tables of all instances.
pub fn instances(socket: &Socket) -> Result<Vec<TableInfo>, Failure> {
    let mut tables = table::tables(socket)?;
    tables.retain(|table| table.name.starts_with(TABLE_PREFIX));
    Ok(tables)
}

/// What the instance with this table claims.
pub fn claims(socket: &Socket, table: &str) -> Result<Claims, Failure> {
    let mut claims = Claims::default();
    for family in Family::ALL {
        for set in claiming_set_names(family) {
            for element in table::elements(socket, table, &set)? {
                match address(&element.first) {
                    Some(address) => claims.addresses.push(address),
                    None => claims.services.extend(service(family, &element)),
                }
            }
        }
    }
    Ok(claims)
}

/// The address that these bytes are, if it is one.
pub fn address(key: &[u8]) -> Option<IpAddr> {
    match key.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(key).ok()?).into()),
        _ => None,
    }
}

/// What a key of protocol and port, each padded to 4 bytes, stands for.
pub fn service(family: Family, element: &Element) -> Option<Claim> {
    let Element { first, last, .. } = element;
    let port = |key: &[u8]| Some(u16::from_be_bytes(key.get(4..6)?.try_into().ok()?));
    let number = *first.first()?;
    Some(Claim {
        family,
        protocol: Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.number() == number)?,
        ports: PortRange::try_from((port(first)?, port(last)?)).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(first: &[u8], last: &[u8]) -> Element {
        Element {
            first: first.to_vec(),
            last: last.to_vec(),
            data: None,
        }
    }

    #[test]
    fn keys_read_back() {
        let ports = key(&[17, 0, 0, 0, 0, 53, 0, 0], &[17, 0, 0, 0, 0, 60, 0, 0]);
        let claim = service(Family::Ipv4, &ports);
        assert_eq!(claim.unwrap().to_string(), "udp/53-60 over IPv4");
        assert_eq!(address(&[10, 0, 0, 1]), Some("10.0.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn no_key_panics(first: Vec<u8>, last: Vec<u8>) {
            service(Family::Ipv6, &key(&first, &last));
            address(&first);
        }
    }
}
