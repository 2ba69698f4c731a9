//! What turns forwarding on: a command, or in a pod, where /proc/sys cannot be written to, a field of the pod.

use crate::config::Family;
use crate::rtnetlink::Routes;
use crate::text::interface_sysctl6;
use nix::libc;
use std::env;
use std::fs::{self, OpenOptions};

/// How a family's forwarding is turned on.
#[derive(Debug)]
pub enum Fix {
    /// By sysctl(8) with these settings, in this order.
    Sysctl(Vec<String>),
    /// By the pod's own field, with the name of this sysctl.
    Pod(&'static str),
}

impl Fix {
    /// How this process's host can turn on a family, with its sysctl.
    pub fn of(family: Family, sysctl: &'static str) -> Self {
        if env::var_os("KUBERNETES_SERVICE_HOST").is_some() && is_read_only(sysctl) {
            return Fix::Pod(sysctl);
        }
        let mut settings = Vec::new();
        if family == Family::Ipv6 {
            settings.extend(
                advertised_interfaces()
                    .iter()
                    .filter_map(|name| accept_advertisements(name)),
            );
        }
        settings.push(format!("{sysctl}=1"));
        Fix::Sysctl(settings)
    }

    /// The command.
    pub fn command(&self) -> Option<String> {
        match self {
            Fix::Sysctl(settings) => Some(format!("sysctl -w {}", settings.join(" "))),
            Fix::Pod(_) => None,
        }
    }

    /// The command, or what to write into the pod.
    pub fn text(&self) -> String {
        match self {
            Fix::Sysctl(_) => self.command().unwrap_or_default(),
            Fix::Pod(sysctl) => format!(
                "securityContext: {{sysctls: [{{name: {sysctl}, value: \"1\"}}]}} in the pod's spec, which the kubelet must allow (--allowed-unsafe-sysctls), and with Calico container_settings: {{allow_ip_forwarding: true}} in its CNI configuration"
            ),
        }
    }
}

/// Whether a sysctl is on a file system that is mounted read-only.
fn is_read_only(sysctl: &str) -> bool {
    let file = format!("/proc/sys/{}", sysctl.replace('.', "/"));
    let opened = OpenOptions::new().write(true).open(file);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EROFS))
}

/// The interfaces from which this host has its IPv6 default routes by router advertisements. When it forwards
/// IPv6, the kernel drops these routes (addrconf_forward_change in net/ipv6/addrconf.c).
fn advertised_interfaces() -> Vec<String> {
    let find = || {
        let routes = Routes::open()?;
        let mut names = Vec::new();
        for route in routes.defaults(Family::Ipv6)? {
            if route.advertised {
                names.extend(routes.interface(route.interface)?.map(|found| found.name));
            }
        }
        Ok::<_, crate::rtnetlink::RtnetlinkError>(names)
    };
    let mut names = find().unwrap_or_default();
    names.dedup();
    names
}

/// The setting with which an interface accepts router advertisements while this host forwards IPv6 too
/// (Documentation/networking/ip-sysctl.rst); `None` if it does, or takes none at all.
pub fn accept_advertisements(interface: &str) -> Option<String> {
    let file = format!("/proc/sys/net/ipv6/conf/{interface}/accept_ra");
    let accepts = fs::read_to_string(file).ok()?;
    (accepts.trim() == "1").then(|| interface_sysctl6(interface, "accept_ra=2"))?
}
