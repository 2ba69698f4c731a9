//! The two encoders against each other: nft lists the same rules when they are installed over netlink
//! and when `nft -f` loads what `nodefwd render` prints.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::fixture::{Namespace, Nodefwd, has_owner_flag, nodefwd, without_programs};

/// The classic options.
const CLASSIC: [&str; 12] = [
    "--dest-ips=10.2.0.11 --dest-proto=tcp --src-port=80 --dest-port=8080",
    "--dest-ips=10.2.0.11 --dest-proto=TCP --src-port=80",
    "--dest-ips=10.2.0.11 --dest-proto=udp --src-port=53 --dest-port=5353",
    "--dest-ips=fd00:2::11 --dest-proto=tcp --src-port=80 --dest-port=8080",
    "--dest-ips=fd00:2::11 --dest-proto=udp --src-port=65535 --dest-port=1",
    "--dest-ips=10.2.0.11,10.2.0.12 --dest-proto=tcp --src-port=80 --dest-port=8080",
    "--dest-ips=fd00:2::11,fd00:2::12,fd00:2::13 --dest-proto=udp --src-port=53",
    "--dest-ips=10.2.0.11,fd00:2::11 --dest-proto=tcp --src-port=80 --dest-port=8080",
    "--dest-ips=fd00:2::12,10.2.0.12,10.2.0.11,fd00:2::11 --dest-proto=tcp --src-port=80",
    "--dest-ips=10.2.0.11,fd00:2::11 --dest-proto=tcp --src-port=80 --hairpin=true",
    "--dest-ips=10.2.0.11 --dest-proto=tcp --src-port=80 --name=web",
    "--dest-ips=10.2.0.11,fd00:2::11 --dest-proto=tcp --src-port=80 --name=a-rather_long.name",
];

/// Source ranges, for a forward of both families.
const SOURCES: [&str; 11] = [
    "10.1.0.0/24",
    "10.1.0.0/24,192.168.0.0/16",
    "fd00:1::/64",
    "10.1.0.0/24,fd00:1::/64",
    "10.1.0.7,fd00:1::7",
    "10.1.0.0/24,10.1.1.0/24,10.1.0.128/25",
    "10.1.0.0/32,10.1.0.1/32,10.1.0.2/32",
    "0.0.0.0/0",
    "0.0.0.0/0,::/0",
    "0.0.0.0/1,128.0.0.0/1,fd00:1::/64",
    "0.0.0.0/32,255.255.255.255/32,::/128,ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
];

/// All other options, for two backends of each family.
const OPTIONS: [&str; 16] = [
    "--balance=random",
    "--balance=round-robin",
    "--balance=source",
    "--listen=any",
    "--listen=10.1.0.1",
    "--listen=eth0",
    "--listen=eth0,fifteen_bytes.x,10.1.0.1,fd00:1::1",
    "--listen=10.1.0.1,10.1.0.9,fd00:1::1",
    "--output=true",
    "--masquerade=false",
    "--fully-random=false",
    "--clamp-mss",
    "--clamp-mss=true --masquerade=false --output",
    "--owner=false",
    "--health=3600",
    "--balance=source --listen=10.1.0.1,fd00:1::1 --output=true --masquerade=false \
     --hairpin=true --src-ranges=10.1.0.0/16,fd00:1::/32 --name=everything",
];

/// Several ports, and forwards as arguments.
const PORTS: [&str; 14] = [
    "--dest-ips=10.2.0.11 --dest-proto=tcp --src-port=80,443,8000-8010",
    "--dest-ips=10.2.0.11,fd00:2::11 --dest-proto=tcp,udp --src-port=80,443",
    "--dest-ips=10.2.0.11 --dest-proto=sctp --src-port=80 --dest-port=8080",
    "--dest-ips=10.2.0.11 --dest-proto=tcp --src-port=8000-8010 --dest-port=9000-9010",
    "--dest-ips=10.2.0.11,10.2.0.12 --dest-proto=tcp --src-port=8000-8010 --dest-port=9000",
    "--dest-ips=10.2.0.11 --dest-proto=tcp --src-port=1-65535",
    "tcp/80=10.2.0.11:8080",
    "tcp/80=10.2.0.11:8080 udp/53=10.2.0.12,10.2.0.13:5353",
    "tcp/7000-7010=[fd00:2::11]:9000-9010,10.2.0.11:9000-9010",
    "tcp/7000-7010=10.2.0.11:9000-9010,10.2.0.11,10.2.0.12:9000-9010 udp/70-71=10.2.0.12:80-81,10.2.0.13:90-91",
    "tcp/1000-1200=10.2.0.11:2000-2200 tcp/1300-1301=10.2.0.12:2300-2301 tcp/80=[fd00:2::11]:1,[fd00:2::11]:2",
    "tcp/80=10.2.0.11,fd00:2::11 udp/80=10.2.0.12 sctp/80=[fd00:2::12]:81",
    "--dest-ips=10.2.0.11 --dest-proto=tcp --src-port=80 udp/53=10.2.0.12 --src-ranges=10.1.0.0/24",
    "tcp/8000-8010=10.2.0.11:80,[fd00:2::11]:80 udp/70-72=10.2.0.11,10.2.0.12 --src-ranges=10.1.0.0/24",
];

/// All of these, each with the arguments that it needs.
pub fn calls() -> impl Iterator<Item = String> {
    let strings = |calls: &[&str]| calls.iter().map(|call| (*call).to_owned()).collect();
    let [classic, ports]: [Vec<String>; 2] = [strings(&CLASSIC), strings(&PORTS)];
    classic
        .into_iter()
        .chain(with_sources())
        .chain(with_options())
        .chain(ports)
}

fn with_sources() -> impl Iterator<Item = String> {
    let call = "--dest-ips=10.2.0.11,fd00:2::11 --dest-proto=tcp --src-port=80 --src-ranges=";
    SOURCES.iter().map(move |ranges| format!("{call}{ranges}"))
}

fn with_options() -> impl Iterator<Item = String> {
    let destinations = "--dest-ips=10.2.0.11,10.2.0.12,fd00:2::11,fd00:2::12";
    let call = format!("{destinations} --dest-proto=tcp --src-port=80 --dest-port=8080 ");
    OPTIONS
        .iter()
        .map(move |options| format!("{call}{options}"))
}

/// Where ports are ranges, nft 1.0.6 converts the protocol's one byte as if it were two, which newer kernels refuse.
const RANGES: &str = "table inet ranges {
    set ranges { type inet_service . inet_proto; flags interval; }
    chain ranges { th dport . meta l4proto @ranges drop; }
}";

/// Whether the kernel takes the rules for ranges of ports that this nft makes.
pub fn loads_ranges(nft: &str, namespace: &Namespace) -> bool {
    let command = format!("echo '{RANGES}' | {nft} -f - && {nft} delete table inet ranges");
    let outcome = namespace.output("sh", &["-c", &command]);
    let refused = outcome.stderr.contains("Operation not supported");
    assert!(outcome.status.success() || refused, "{outcome:?}");
    !refused
}

/// A namespace in which the rules of a call are installed, and one in which they are loaded.
struct Pair {
    installing: Namespace,
    loading: Namespace,
    nft: &'static str,
    file: PathBuf,
}

impl Pair {
    fn new(name: &str) -> Self {
        let loading = Namespace::new("load");
        let nft = if loads_ranges("nft", &loading) {
            "nft"
        } else {
            "nft-trixie"
        };
        Pair {
            installing: Namespace::forwarding("install"),
            loading,
            nft,
            file: Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.nft")),
        }
    }

    /// The rules that nft lists while nodefwd runs.
    fn installed(&self, arguments: &[&str]) -> String {
        let forwarder = nodefwd(arguments).start(&self.installing);
        let ruleset = self.installing.succeed(self.nft, &["list", "ruleset"]);
        forwarder.stop(Signal::SIGTERM).expect_exit(0);
        assert_eq!(self.installing.ruleset(), "");
        without_programs(&ruleset)
    }

    /// The rules that nft lists after it has loaded what `nodefwd render` prints.
    fn rendered(&self, arguments: &[&str]) -> String {
        let call = nodefwd(["render"]).args(arguments).without_net_admin();
        let text = call.finish_here().expect_success();
        fs::write(&self.file, text).expect("a file for nft");
        let file = self.file.to_str().expect("UTF-8");
        self.loading.succeed(self.nft, &["-f", file]);
        // A table with an owner has gone with the nft that loaded it.
        let left = self.loading.succeed(self.nft, &["list", "ruleset"]);
        assert_eq!(left.is_empty(), has_owner(arguments), "{left}");
        self.loading.succeed("nft", &["flush", "ruleset"]);
        // So the nft that loads it must list it too.
        let commands = format!("include \"{file}\"\nlist ruleset\n");
        let ruleset = self.loading.feed(&commands, self.nft, &["-i"]);
        self.loading.succeed("nft", &["flush", "ruleset"]);
        without_programs(&ruleset)
    }

    fn difference(&self, arguments: &str) -> Option<String> {
        let mut words: Vec<_> = arguments.split_whitespace().collect();
        if !has_owner_flag() && has_owner(&words) {
            words.push("--owner=false");
        }
        let installed = self.installed(&words);
        let rendered = self.rendered(&words);
        assert!(installed.contains("table inet nodefwd-"), "{installed}");
        let owned = installed.contains("flags owner");
        assert_eq!(owned, has_owner(&words), "{installed}");
        (installed != rendered).then(|| {
            format!("=== {arguments}\n--- installed\n{installed}\n--- rendered\n{rendered}")
        })
    }
}

/// Whether the table is to have an owner.
fn has_owner(arguments: &[&str]) -> bool {
    !arguments.contains(&"--owner=false")
}

fn expect_equal(name: &str, calls: impl IntoIterator<Item = String>) {
    let pair = Pair::new(name);
    let calls = calls.into_iter();
    let differences: Vec<_> = calls.filter_map(|call| pair.difference(&call)).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn both_encoders_agree_on_classic_options() {
    expect_equal("classic", CLASSIC.map(str::to_owned));
}

#[test]
fn both_encoders_agree_on_source_ranges() {
    expect_equal("sources", with_sources());
}

#[test]
fn both_encoders_agree_on_other_options() {
    expect_equal("options", with_options());
}

#[test]
fn both_encoders_agree_on_ports_and_forwards() {
    expect_equal("ports", PORTS.map(str::to_owned));
}

#[test]
fn the_rendered_table_has_an_owner_unless_the_option_says_false() {
    let render = |call: Nodefwd| call.without_net_admin().finish_here().expect_success();
    let call = nodefwd(["render", "tcp/80=10.2.0.11"]);
    for (call, owned) in [
        (call.clone(), true),
        (call.clone().args(&["--owner"]), true),
        (call.clone().args(&["--owner=false"]), false),
        (call.clone().env("NODEFWD_OWNER", "true"), true),
        (call.env("NODEFWD_OWNER", "false"), false),
    ] {
        let text = render(call);
        assert_eq!(text.contains("flags owner"), owned, "{text}");
    }
}

/// The kernel must have flowtables, as stock ones do: `tests/kernels.sh 6.12 -- --ignored encoders`.
#[test]
#[ignore = "needs flowtables"]
fn both_encoders_agree_on_the_fast_path() {
    let pair = Pair::new("fast-path");
    for namespace in [&pair.installing, &pair.loading] {
        namespace.ip("link add lan0 type dummy\nlink add 9@x type dummy");
    }
    let forwards = "tcp/80=10.2.0.11:8080,[fd00:2::11]:8080 udp/50-59=10.2.0.11,10.2.0.12";
    for options in [
        "",
        "--masquerade=false",
        "--owner=false",
        "--listen=10.1.0.1 --clamp-mss",
    ] {
        let call = format!("{forwards} --fast-path=lan0,9@x {options}");
        let difference = pair.difference(&call);
        assert!(difference.is_none(), "{}", difference.unwrap_or_default());
    }
}

/// Over netlink, long sets are sent in several messages.
#[test]
fn both_encoders_agree_on_many_backends() {
    let addresses = |prefix: &str| {
        (1..=250)
            .map(|n| format!("{prefix}{n}"))
            .collect::<Vec<_>>()
    };
    let destinations = [addresses("10.2.0."), addresses("fd00:2::")]
        .concat()
        .join(",");
    let call = format!("--dest-ips={destinations} --dest-proto=tcp --src-port=80");
    expect_equal("many", [call]);
}
