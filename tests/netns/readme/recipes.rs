//! The recipes of deploy/README.md, with traffic: their commands are read out of it and run.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use super::parts::{RECIPES, blocks};
use crate::fixture::{
    BACKEND_PORT, EVENT_TIMEOUT, FORWARDED_PORT, Family, Host, Net, PROTOCOLS_AND_FAMILIES,
    SILENCE_TIMEOUT, addresses, expect_reply, forward_to, nodefwd, wait_until,
};

/// The shell of a section, with other words for those that the reader replaces.
fn shell(section: &str, words: &[(&str, &str)]) -> String {
    let section = super::DEPLOY.split_once(&format!("\n{section}\n"));
    let (_, text) = section.expect("the section");
    let mut shell = blocks(text, "sh")[0].to_owned();
    for (from, to) in words {
        assert!(shell.contains(from), "no {from} in: {shell}");
        shell = shell.replace(from, to);
    }
    shell
}

fn run(net: &Net, script: &str) {
    net.node.succeed("bash", &["-ec", script]);
}

const FTP: u16 = 21;
const TFTP: u16 = 69;
const FILE: &[u8] = b"the file";

fn connect(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    Ok(stream)
}

/// How FTP names an address and port (RFC 959, RFC 2428).
fn in_ftp(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            let [high, low] = address.port().to_be_bytes();
            format!("{a},{b},{c},{d},{high},{low}")
        }
        IpAddr::V6(ip) => format!("|2|{ip}|{}|", address.port()),
    }
}

fn from_ftp(text: &str) -> SocketAddr {
    if let [_, _, ip, port, _] = text.split('|').collect::<Vec<_>>()[..] {
        return format!("[{ip}]:{port}").parse().expect("an address");
    }
    let numbers = text
        .split(',')
        .map(|number| number.parse().expect("a byte"));
    let numbers: Vec<u8> = numbers.collect();
    let ip: [u8; 4] = numbers[..4].try_into().expect("an address");
    (ip, u16::from_be_bytes([numbers[4], numbers[5]])).into()
}

/// Sends the file for each of two commands: to the client that connects to the port that the reply names,
/// and to the port that the client names.
fn ftp_server(listener: &TcpListener) -> io::Result<()> {
    let (control, _) = listener.accept()?;
    control.set_read_timeout(Some(EVENT_TIMEOUT))?;
    (&control).write_all(b"220 ready\r\n")?;
    let ip = listener.local_addr()?.ip();
    for line in BufReader::new(&control).lines() {
        let line = line?;
        match line.split_once(' ') {
            None if line == "NOOP" => (&control).write_all(b"200 done\r\n")?,
            Some((_, to)) => connect(from_ftp(to), SILENCE_TIMEOUT)?.write_all(FILE)?,
            None => {
                let data = TcpListener::bind(SocketAddr::new(ip, 0))?;
                let here = data.local_addr()?;
                let reply = match ip {
                    IpAddr::V4(_) => format!("227 Entering Passive Mode ({})\r\n", in_ftp(here)),
                    IpAddr::V6(_) => format!(
                        "229 Entering Extended Passive Mode (|||{}|)\r\n",
                        here.port()
                    ),
                };
                (&control).write_all(reply.as_bytes())?;
                data.set_nonblocking(true)?;
                let waited = || data.accept().map(|(stream, _)| stream);
                let mut stream = retry(waited)?;
                stream.write_all(FILE)?;
            }
        }
    }
    Ok(())
}

/// Waits for a connection, but not for ever.
fn retry(accept: impl Fn() -> io::Result<TcpStream>) -> io::Result<TcpStream> {
    let mut last = accept();
    for _ in 0..SILENCE_TIMEOUT.as_millis() {
        if last.is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(1));
        last = accept();
    }
    last
}

fn received(mut stream: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Greetings come first: the helper looks only at lines that come after one of the same side
/// (find_nl_seq in net/netfilter/nf_conntrack_ftp.c).
fn ftp_control(to: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let mut control = BufReader::new(connect(to, EVENT_TIMEOUT)?);
    for command in [b"NOOP\r\n".as_slice(), b""] {
        control.read_line(&mut String::new())?;
        control.get_mut().write_all(command)?;
    }
    Ok(control)
}

/// Where the client asks the server for its port.
fn passive(to: SocketAddr) -> io::Result<Vec<u8>> {
    let mut control = ftp_control(to)?;
    let command: &[u8] = if to.is_ipv4() {
        b"PASV\r\n"
    } else {
        b"EPSV\r\n"
    };
    control.get_mut().write_all(command)?;
    let mut line = String::new();
    control.read_line(&mut line)?;
    let (_, named) = line.split_once('(').expect("a port");
    let (named, _) = named.split_once(')').expect("its end");
    let to = match to.ip() {
        IpAddr::V4(_) => from_ftp(named),
        IpAddr::V6(_) => {
            let port = named.trim_matches('|').parse().expect("a port");
            SocketAddr::new(to.ip(), port)
        }
    };
    received(connect(to, SILENCE_TIMEOUT)?)
}

/// Where the client tells the server its own port.
fn active(to: SocketAddr) -> io::Result<Vec<u8>> {
    let mut control = ftp_control(to)?;
    let own = control.get_ref().local_addr()?.ip();
    let data = TcpListener::bind(SocketAddr::new(own, 0))?;
    data.set_nonblocking(true)?;
    let command = if to.is_ipv4() { "PORT" } else { "EPRT" };
    let line = format!("{command} {}\r\n", in_ftp(data.local_addr()?));
    control.get_mut().write_all(line.as_bytes())?;
    received(retry(|| data.accept().map(|(stream, _)| stream))?)
}

/// Sends a block of data (RFC 1350) from a port of its own.
fn tftp_server(socket: &UdpSocket) -> io::Result<()> {
    let (_, client) = socket.recv_from(&mut [0; 512])?;
    let own = UdpSocket::bind(SocketAddr::new(socket.local_addr()?.ip(), 0))?;
    own.send_to(&[&[0, 3, 0, 1], FILE].concat(), client)?;
    Ok(())
}

fn tftp(to: SocketAddr) -> io::Result<Vec<u8>> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(SILENCE_TIMEOUT))?;
    socket.send_to(b"\0\x01file\0octet\0", to)?;
    let mut block = [0; 512];
    let (length, _) = socket.recv_from(&mut block)?;
    Ok(block[4..length].to_vec())
}

/// The backend's sockets for one family.
struct Servers {
    ftp: TcpListener,
    tftp: UdpSocket,
}

impl Servers {
    fn new(host: &Host, family: Family) -> Self {
        let at = |port| SocketAddr::new(host.address(family), port);
        host.run(|| Servers {
            ftp: TcpListener::bind(at(FTP)).expect("a listener"),
            tftp: UdpSocket::bind(at(TFTP)).expect("a socket"),
        })
    }

    /// Has a client fetch the file in each way.
    fn fetch_all(&self, net: &Net, family: Family) -> [io::Result<Vec<u8>>; 3] {
        let fetch = |client: fn(SocketAddr) -> io::Result<Vec<u8>>, port| {
            let to = net.node_addr(family, port);
            thread::scope(|scope| {
                // What goes wrong there, the client says.
                scope.spawn(|| {
                    net.backends[0].run(|| match port {
                        FTP => ftp_server(&self.ftp),
                        _ => tftp_server(&self.tftp),
                    })
                });
                net.client.run(|| client(to))
            })
        };
        [fetch(passive, FTP), fetch(active, FTP), fetch(tftp, TFTP)]
    }
}

#[test]
fn ftp_and_tftp_are_followed_by_the_helpers_of_the_recipe() {
    let net = Net::new(1);
    let backend = &net.backends[0];
    // The client's network and the backend's reach each other by what is forwarded only.
    net.node.load(
        "table inet closed { chain forward {
            type filter hook forward priority 0; policy drop;
            ct status dnat accept
            ct state established,related accept
         }; }",
    );
    let forwards = addresses(backend);
    let servers = Family::BOTH.map(|family| (family, Servers::new(backend, family)));
    for (family, servers) in &servers {
        let forwards = [format!("tcp/21={forwards}"), format!("udp/69={forwards}")];
        let _instance = nodefwd(forwards).start(&net.node);
        for outcome in servers.fetch_all(&net, *family) {
            assert!(outcome.is_err(), "{family:?}: {outcome:?}");
        }
    }
    let shell = shell(RECIPES[0], &[("10.2.0.11", &forwards)]);
    let (table, call) = shell.trim_end().rsplit_once('\n').expect("several lines");
    run(&net, table);
    for masquerade in ["--masquerade=true", "--masquerade=false"] {
        let call = call.strip_prefix("nodefwd ").expect("an instance");
        let _instance = nodefwd(call.split(' '))
            .args(&[masquerade])
            .start(&net.node);
        for (family, servers) in &servers {
            for outcome in servers.fetch_all(&net, *family) {
                let what = format!("{family:?} {masquerade}: {outcome:?}");
                assert_eq!(outcome.expect(&what), FILE, "{what}");
            }
        }
    }
}

/// The node's default route leads to another router than the one that the client is behind.
#[test]
fn replies_leave_by_the_uplink_of_the_recipe() {
    let net = Net::new(1);
    let other = net.another_client(2);
    let _servers = net.serve(BACKEND_PORT);
    let far = |family| match family {
        Family::V4 => IpAddr::from([198, 51, 100, 2]),
        Family::V6 => "2001:db8:99::2".parse().expect("an address"),
    };
    for family in Family::BOTH {
        let far = far(family);
        net.client.add_loopback_address(far);
        let router = other.address(family);
        net.node.ip(&format!("route add default via {router}"));
    }
    net.node.set_sysctl("net/ipv4/conf/all/rp_filter", "1");
    let request = |protocol, family| {
        let from = SocketAddr::new(far(family), 0);
        let to = net.node_addr(family, FORWARDED_PORT);
        net.client
            .request_within(SILENCE_TIMEOUT, protocol, Some(from), to)
    };
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        let _instance = forward_to(protocol, &net.backends).start(&net.node);
        assert!(
            request(protocol, family).is_err(),
            "{protocol:?} {family:?}"
        );
    }
    let [v4, v6] = Family::BOTH.map(|family| net.client.address(family).to_string());
    let words = [
        ("eth1", "client"),
        ("203.0.113.1", &v4),
        ("2001:db8::1", &v6),
    ];
    run(&net, &shell(RECIPES[1], &words));
    for (protocol, family) in PROTOCOLS_AND_FAMILIES {
        for masquerade in ["--masquerade=true", "--masquerade=false"] {
            let call = forward_to(protocol, &net.backends).args(&[masquerade]);
            let _instance = call.start(&net.node);
            let source = match masquerade {
                "--masquerade=true" => net.backends[0].gateway(family),
                _ => far(family),
            };
            expect_reply(request(protocol, family), "backend-1", source);
        }
        // Connections that come in elsewhere are answered there.
        let _instance = forward_to(protocol, &net.backends).start(&net.node);
        let to = SocketAddr::new(other.gateway(family), FORWARDED_PORT);
        let reply = other.request(protocol, to);
        expect_reply(reply, "backend-1", net.backends[0].gateway(family));
    }
}

/// Each kind of rules, and what an instance does beside.
const CALLS: [&str; 4] = [
    "tcp/80=10.2.1.2:8080,[fd00:2:1::2]:8080 --src-ranges=10.1.1.0/24,fd00:1:1::/64 --clamp-mss --output",
    "udp/80=10.2.1.2:8080,10.2.1.2:8081 sctp/7-9=10.2.1.2:17-19 --balance=source --listen=client",
    "tcp/80=10.2.1.2:8080,10.2.1.2:8081 --balance=round-robin --listen=any --drain=1",
    "tcp/70-90=[fd00:2:1::2]:170-190 --masquerade=false",
];

/// Starts an instance until it is ready, with what each error says that the kernel lacks. Gives its log, and what was
/// loaded, in this order.
fn load_what_errors_name(net: &Net, call: &str) -> (String, Vec<String>) {
    let mut loaded = Vec::new();
    loop {
        let process = nodefwd(call.split(' ')).spawn(&net.node);
        let ends = |stderr: &String| stderr.contains("load the module");
        let done = |stderr: &String| ends(stderr) || process.has_said("ready");
        let stderr = wait_until("a start or an error", || process.stderr(), done);
        if !ends(&stderr) {
            let end = process.stop(nix::sys::signal::Signal::SIGTERM);
            return (end.expect_exit(0).stderr, loaded);
        }
        let error = process.finish().expect_exit(1).stderr;
        let (_, command) = error.split_once("load the module").expect(&error);
        let (_, rest) = command.split_once(" with ").expect(&error);
        let (command, _) = rest.split_once(',').expect(&error);
        run(net, command);
        let names = command.split(' ').skip(1).filter(|word| *word != "-a");
        for name in names {
            assert!(!loaded.contains(&name.to_owned()), "{name}: {error}");
            loaded.push(name.to_owned());
        }
    }
}

/// With the modules that it lists, an instance needs no other; without one, the error says which.
#[test]
#[ignore = "loads modules, alone in a kernel: tests/kernels.sh 6.1 -- --ignored modules"]
fn the_modules_are_all_that_it_needs() {
    let net = Net::new(1);
    std::fs::write("/proc/sys/kernel/modprobe", "/bin/false").expect("a sysctl");
    let list = shell("### Where modules do not load by themselves", &[]);
    let mut named = Vec::new();
    for call in CALLS {
        named.extend(load_what_errors_name(&net, call).1);
    }
    for module in [
        "nf_tables",
        "nft_chain_nat",
        "nft_nat",
        "nft_ct",
        "nft_fib_inet",
        "nft_masq",
        "nft_numgen",
        "nft_hash",
    ] {
        assert!(named.contains(&module.to_owned()), "{module}: {named:?}");
    }
    // Newer kernels have counters built in, so the list is without them.
    for name in named.iter().filter(|name| *name != "nft_counter") {
        let is_listed = list.split_whitespace().any(|word| word == name);
        assert!(is_listed, "{name}: {list}");
    }
    run(&net, &list);
    for call in CALLS {
        let instance = nodefwd(call.split(' '))
            .args(&["--verbose"])
            .start(&net.node);
        instance.wait_for_line("debug: checked routes, other tables and sockets");
        let stderr = instance
            .stop(nix::sys::signal::Signal::SIGTERM)
            .expect_exit(0)
            .stderr;
        // What other hosts do with replies, and what a kernel is too old for, no module changes.
        let others = ["replies: ", "this kernel (before 5.12)"];
        let is_other = |line: &&str| others.iter().any(|other| line.contains(other));
        for line in stderr.lines().filter(|line| !is_other(line)) {
            let lacks = line.contains("warning") || line.contains("not looked at");
            assert!(!lacks, "{call}: {line}");
        }
    }
    let call = "tcp/80=10.2.1.2 --fast-path=client";
    let (stderr, named) = load_what_errors_name(&net, call);
    assert_eq!(named, ["nf_flow_table_inet", "nft_flow_offload"]);
    assert!(stderr.contains("fast path: on client"), "{stderr}");
}
