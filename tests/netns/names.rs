//! Names of hosts as destinations.

mod changes;
mod families;
mod health;
mod lookup;

use crate::fixture::{Dns, Family, Net, Nodefwd, TempFolder, nodefwd};

/// The name that most tests use.
const HOME: &str = "home.example.org";

/// Hosts, the first of which has a name server, and what the node has in /etc.
struct Names {
    net: Net,
    dns: Dns,
    etc: TempFolder,
}

impl Names {
    fn new(backends: u8) -> Self {
        let net = Net::new(backends);
        let server = net.backends[0].address(Family::V4);
        let dns = Dns::start(&net.backends[0], server);
        let etc = TempFolder::new();
        etc.write(
            "resolv.conf",
            format!("nameserver {server}\noptions timeout:30\n"),
        );
        Names { net, dns, etc }
    }

    /// The name has the addresses of these hosts, counted from 1.
    fn set(&self, name: &str, hosts: &[usize]) {
        let host = |number: &usize| &self.net.backends[number - 1];
        let addresses = |number| Family::BOTH.map(|family| host(number).address(family));
        let addresses: Vec<_> = hosts.iter().flat_map(addresses).collect();
        self.dns.set(name, &addresses);
    }

    /// A call that finds the folder's files in /etc.
    fn call(&self, arguments: &[&str]) -> Nodefwd {
        self.wrap(nodefwd(arguments))
    }

    fn wrap(&self, call: Nodefwd) -> Nodefwd {
        const SCRIPT: &str = "mount --bind \"$0\" /etc && exec \"$@\"";
        let folder = self.etc.path().to_str().expect("UTF-8");
        call.wrapped(&["unshare", "--mount", "sh", "-c", SCRIPT, folder])
    }
}
