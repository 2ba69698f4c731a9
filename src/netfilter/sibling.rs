//! The other instances in this network namespace, as the kernel shows them.

use super::socket::{Failure, Socket};
use super::table::{self, TableInfo};
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
            for (first, last) in table::keys(socket, table, &set)? {
                match address(&first) {
                    Some(address) => claims.addresses.push(address),
                    None => claims.services.extend(service(family, &first, &last)),
                }
            }
        }
    }
    Ok(claims)
}

fn address(key: &[u8]) -> Option<IpAddr> {
    match key.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(key).ok()?).into()),
        _ => None,
    }
}

/// Protocol and port, each padded to 4 bytes.
fn service(family: Family, first: &[u8], last: &[u8]) -> Option<Claim> {
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

    #[test]
    fn keys_read_back() {
        let claim = service(
            Family::Ipv4,
            &[17, 0, 0, 0, 0, 53, 0, 0],
            &[17, 0, 0, 0, 0, 60, 0, 0],
        );
        assert_eq!(claim.unwrap().to_string(), "udp/53-60 over IPv4");
        assert_eq!(address(&[10, 0, 0, 1]), Some("10.0.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn no_key_panics(first: Vec<u8>, last: Vec<u8>) {
            service(Family::Ipv6, &first, &last);
            address(&first);
        }
    }
}
