//! The command line: every flag with its variable.

#[cfg(feature = "completions")]
use crate::completions::Shell;
use crate::config::Name;
use clap::{Arg, ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;

const EXAMPLES: &str = "\
Examples:
  Forward TCP port 80 of this host to port 8080 of another one, and UDP port 53 to a third:
      nodefwd tcp/80=10.0.0.5:8080 udp/53=10.0.0.6

  The same port over IPv4 and IPv6, each connection to one of the destinations at random:
      nodefwd tcp/443=10.0.0.5,10.0.0.6,fd00::5

  A range of ports, for clients of one network only:
      nodefwd --src-ranges 192.168.1.0/24 tcp/8000-8100=10.0.0.5

  As a container of Kubernetes' service load balancer is started:
      DEST_IPS=10.43.0.10 DEST_PROTO=TCP SRC_PORT=80 DEST_PORT=80 nodefwd

  See the rules without installing them, and whether they would work here:
      nodefwd render tcp/80=10.0.0.5:8080
      nodefwd check tcp/80=10.0.0.5:8080

Exit status:
  0  ended by TERM, INT, HUP or QUIT, and every rule removed
  1  the environment does not allow it, with the reason on standard error
  2  the input is wrong, and nothing was touched";

const CHECK_NOTES: &str = "\
Prints a line for each thing that a forwarded connection depends on: ok; warning, if something may be
wrong, or is wrong for others; failure, if connections are not forwarded, or not all.
Warnings and failures say what to do, and name the command. The kernel looks through the rules and
throws them away before anybody sees them.

Example:
      nodefwd check tcp/80=10.0.0.5:8080

Exit status:
  0  no failure
  1  failures
  2  the input is wrong, and nothing was looked at";

/// The shape of the JSON is kept by a test of status/json.rs.
const STATUS_NOTES: &str = "\
Text and the other formats show, for each destination, how many connections it was given (taken)
and how many of them the kernel still tracks (flows), and for each forward how many first packets
were dropped because their source may not connect (denied: a client's retries count too).

JSON, to which fields may be added; the comments are not part of it:
  {\"instances\": [{
    \"name\": \"web\", \"table\": \"nodefwd-web\",
    \"open\": true,                             // takes new connections; false while draining
    \"listen\": [\"192.168.1.1\"],                // empty: all addresses
    \"owner\": {                                // null if nobody owns the table
      \"port\": 4242,                           // of its netlink socket
      \"pid\": 4242, \"process\": \"nodefwd\",      // null if it cannot be seen from here
      \"since\": 1700000000},                   // seconds since 1970; null as well
    \"forwards\": [{
      \"protocol\": \"tcp\", \"family\": \"ipv4\", \"ports\": {\"first\": 80, \"last\": 80},
      \"denied\": 0,
      \"destinations\": [{
        \"to\": {\"address\": \"10.0.0.5\", \"ports\": {\"first\": 8080, \"last\": 8080}},
        \"taken\": 12,
        \"flows\": 3}]}]}]}                     // null if the kernel does not say

Examples:
  Everything that is forwarded here, once a second:
      nodefwd status --watch

  For the textfile collector of Prometheus' node_exporter:
      nodefwd status --format prometheus

  As the readiness probe of a container, which has the container's environment:
      nodefwd status --ready

Exit status:
  0  done; with --ready: the rules are in the kernel and take connections
  1  it is not allowed (reading nftables needs CAP_NET_ADMIN too), there is no such instance, or
     with --ready: the rules are not in the kernel, or take no new connections
  2  the input is wrong";

/// Forwards ports of a Linux network namespace to other hosts, in the kernel, with nftables.
///
/// Installs its rules in one transaction, waits for a signal, and removes them.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do; `run` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The options of `run`.
    #[command(flatten)]
    pub options: Options,

    /// How much is logged.
    #[command(flatten)]
    pub verbosity: Verbosity,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Forward until a signal comes (the default)
    #[command(after_help = EXAMPLES)]
    Run(Options),
    /// Print the nftables ruleset that `run` would install, and touch nothing
    Render(Options),
    /// Say whether `run` would work here, and why not, and change nothing
    #[command(after_long_help = CHECK_NOTES)]
    Check(Options),
    /// Show what is forwarded in this network namespace, whoever runs it
    #[command(after_long_help = STATUS_NOTES)]
    Status(StatusOptions),
    #[cfg(feature = "completions")]
    /// Print a script with which a shell completes the command line
    Completions {
        /// Which shell it is for
        shell: Shell,
    },
}

/// What to show of the instances in this network namespace.
#[derive(Debug, Default, Args)]
pub struct StatusOptions {
    /// The instance to look at [default: all]
    #[arg(value_name = "NAME")]
    pub name: Option<Name>,

    /// Show nothing; exit with 0 if the kernel has the instance's rules and takes connections,
    /// and with 1 if not
    ///
    /// Without NAME, it is the instance that the environment configures: NODEFWD_NAME, or the first
    /// forward of SRC_PORT and DEST_PROTO or of NODEFWD_FORWARDS. If nothing is configured, any
    /// instance will do.
    #[arg(long, conflicts_with_all = ["format", "watch"])]
    pub ready: bool,

    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    pub format: StatusFormat,

    /// Write it anew every second until a signal comes
    #[arg(long)]
    pub watch: bool,
}

/// How the status is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// An aligned table for people
    #[default]
    Text,
    /// For programs
    Json,
    /// The text exposition format of Prometheus
    Prometheus,
}

/// How much is logged to standard error.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct Verbosity {
    /// Log more; twice for all there is. RUST_LOG=error|warn|info|debug|trace|off has the last word
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Log warnings and errors only; twice for errors only. Colours come on a terminal only
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "verbose")]
    pub quiet: u8,
}

/// What options have in common.
trait ArgExt {
    /// The variable that sets it too; the help does not say what is in it.
    fn variable(self, name: &'static str) -> Self;

    /// The variable of a yes or no; the bare flag is a yes.
    fn boolean(self, variable: &'static str) -> Self;
}

impl ArgExt for Arg {
    fn variable(self, name: &'static str) -> Self {
        self.env(name).hide_env_values(true)
    }

    fn boolean(self, variable: &'static str) -> Self {
        let arg = self.variable(variable).value_name("BOOL");
        let arg = arg.num_args(0..=1).require_equals(true);
        arg.default_missing_value("true")
    }
}

/// What to forward and how. Values are taken as they are: [`crate::config`] reads them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What to forward")]
pub struct Options {
    /// Forwards: PROTO/PORT[-PORT]=DEST[,DEST...], where DEST is IP, IP:PORT or [IP6]:PORT
    ///
    /// Several are separated by white space. Without a port, a destination gets the connection on the
    /// port it came to. A range goes to one port, to the same ports, or to a range of equal length.
    // clap shows this as it stands.
    #[allow(rustdoc::broken_intra_doc_links)]
    #[arg(value_name = "FORWARD", variable = "NODEFWD_FORWARDS")]
    pub forwards: Vec<OsString>,

    /// Addresses to forward to, IPv4 and IPv6, separated by commas or spaces
    #[arg(long, value_name = "IP,...", variable = "DEST_IPS")]
    pub dest_ips: Option<OsString>,

    /// Protocols: tcp, udp, sctp
    #[arg(long, value_name = "PROTO,...", variable = "DEST_PROTO")]
    pub dest_proto: Option<OsString>,

    /// Ports to forward: a list of ports and ranges
    #[arg(long, value_name = "PORT,...", variable = "SRC_PORT")]
    pub src_port: Option<OsString>,

    /// Ports at the destination: one for all, or one for each entry of SRC_PORT [default: the same]
    #[arg(long, value_name = "PORT,...", variable = "DEST_PORT")]
    pub dest_port: Option<OsString>,

    /// Sources that may connect, as CIDRs or addresses [default: everyone]
    #[arg(long, value_name = "CIDR,...", variable = "SRC_RANGES")]
    pub src_ranges: Option<OsString>,

    /// How a connection is given one of several destinations: random, round-robin, or source,
    /// which keeps a client with one destination [default: random]
    #[arg(
        help_heading = "How to forward",
        long,
        value_name = "HOW",
        variable = "NODEFWD_BALANCE"
    )]
    pub balance: Option<OsString>,

    /// Which packets to take: local, those sent to any address of this network namespace; any,
    /// those passing through too; or those sent to a list of addresses [default: local]
    #[arg(
        help_heading = "How to forward",
        long,
        value_name = "WHERE",
        variable = "NODEFWD_LISTEN"
    )]
    pub listen: Option<OsString>,

    /// Forward connections made on this host itself to its own addresses too, except to loopback
    /// addresses [default: false]
    #[arg(help_heading = "How to forward", long, boolean = "NODEFWD_OUTPUT")]
    pub output: Option<OsString>,

    /// Let the destination see this host's address instead of the client's; false needs a route
    /// from the destination back through this host [default: true]
    #[arg(help_heading = "How to forward", long, boolean = "NODEFWD_MASQUERADE")]
    pub masquerade: Option<OsString>,

    /// Forward a connection that a destination itself makes to the forwarded port [default: false]
    #[arg(help_heading = "How to forward", long, boolean = "NODEFWD_HAIRPIN")]
    pub hairpin: Option<OsString>,

    /// The instance's name; its table is nodefwd-NAME [default: from the first forward: tcp-80]
    #[arg(
        help_heading = "The instance",
        long,
        value_name = "NAME",
        variable = "NODEFWD_NAME"
    )]
    pub name: Option<OsString>,

    /// Fail when a family among the destinations cannot be forwarded, instead of going on with the
    /// other one [default: false]
    #[arg(help_heading = "The instance", long, boolean = "NODEFWD_STRICT")]
    pub strict: Option<OsString>,

    /// Take the place of a running instance of the same name, which then ends: no connection is
    /// refused or broken meanwhile. Without one, start as ever [default: false]
    #[arg(help_heading = "The instance", long, value_name = "BOOL", env = "NODEFWD_REPLACE", hide_env_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub replace: Option<OsString>,

    /// After TERM take no new connections, but let running ones go on for at most this time; a
    /// second signal ends the wait [default: 0]
    #[arg(
        help_heading = "The instance",
        long,
        value_name = "SECONDS",
        variable = "NODEFWD_DRAIN"
    )]
    pub drain: Option<OsString>,

    /// Let the kernel keep others from changing the table; false does as on a kernel before 5.12
    #[arg(hide = true, long, boolean = "NODEFWD_OWNER")]
    pub owner: Option<OsString>,
}
