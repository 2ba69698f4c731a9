//! Addresses and interfaces to listen on, and families that this host has no address of.

use super::Paths;
use crate::check::{Finding, Level};
use crate::config::{Config, Family, Listen, first_few, is_link_local};
use crate::rtnetlink::{Route, RtnetlinkError};
use std::net::IpAddr;

const SUBJECT: &str = "listen";

impl Paths {
    /// What is not here that is to be listened on. If nothing is, nothing is forwarded.
    pub fn missing_listen(&self, config: &Config) -> Result<Vec<Finding>, RtnetlinkError> {
        let mut interfaces = config.listen.interfaces().to_vec();
        let all = interfaces.len() + config.listen.addresses().len();
        interfaces.retain(|name| matches!(self.routes.index_of(name), Ok(None)));
        let (mut missing, mut routed) = (Vec::new(), Vec::new());
        for address in config.listen.addresses() {
            if self.is_own(*address) {
                continue;
            }
            match self.routes.find(*address, None, None)? {
                // Packets to it pass through this host on their way to another interface.
                Some(Route::Through(index)) if !self.comes_in_on(*address, index) => {
                    routed.push(*address);
                }
                _ => missing.push(*address),
            }
        }
        let level = if interfaces.len() + missing.len() == all {
            Level::Failure
        } else {
            Level::Warning
        };
        let mut findings: Vec<Finding> = interfaces
            .iter()
            .map(|name| {
                let text =
                    format!("there is no interface {name}: until there is, nothing comes in on it");
                Finding::new(level, SUBJECT, text)
            })
            .collect();
        if !missing.is_empty() {
            let text = format!(
                "this host does not have {}: until it does, nothing comes in there",
                first_few(missing.iter())
            );
            findings.push(Finding::new(level, SUBJECT, text));
        }
        if !routed.is_empty() {
            let text = format!(
                "this host does not have {}: only packets that it routes there are forwarded",
                first_few(routed.iter())
            );
            findings.push(Finding::new(Level::Warning, SUBJECT, text));
        }
        Ok(findings)
    }

    /// Whether clients come in on the interface that leads to an address.
    fn comes_in_on(&self, address: IpAddr, index: u32) -> bool {
        let ingress = self.ingress(Family::of(address));
        ingress.is_none_or(|ingress| ingress.interface.index == index)
    }

    /// The families of a config of which this host has no address that a client could send to, unless it
    /// forwards what is sent to others.
    pub fn unused_families(&self, config: &Config) -> Vec<Family> {
        let is_used = |family: &Family| {
            let mut own = self.own.iter().map(|own| own.address);
            config.listen == Listen::Any
                || own
                    .any(|ip| Family::of(ip) == *family && !ip.is_loopback() && !is_link_local(ip))
        };
        config
            .families()
            .filter(|family| !is_used(family))
            .collect()
    }
}

/// That nothing comes in over these families; a failure if nothing else does either.
pub fn unused(families: &[Family], config: &Config) -> Option<Finding> {
    let is_all = families.len() == config.families().count();
    let level = if is_all { Level::Failure } else { Level::Ok };
    let names = first_few(families.iter());
    let text = format!("this host has no {names} address, so nothing comes in over {names}");
    (!families.is_empty()).then(|| Finding::new(level, SUBJECT, text))
}
