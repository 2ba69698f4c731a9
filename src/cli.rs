//! The command line: commands, logging, and the notes of each `--help`.

use crate::check::CheckOptions;
#[cfg(feature = "completions")]
use crate::completions::Shell;
use crate::config::{ArgExt, ConfigError, Name, OptionName, Options, log_format};
use crate::logging::LogFormat;
use crate::status::StatusOptions;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};
use log::LevelFilter;
use std::env;
use std::ffi::{OsStr, OsString};

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
  0  ended by TERM, INT, QUIT or HUP (with --env-file, HUP reloads), and every rule removed
  1  the environment does not allow it, with the reason on standard error
  2  the input is wrong, and nothing was touched";

const CHECK_NOTES: &str = "\
Prints one line for each thing that a forwarded connection depends on:
  ok       it is as it should be
  warning  something may be wrong, or is wrong for other programs
  failure  connections are not forwarded, or not all of them
Warnings and failures name the command that mends it. What check cannot follow is a warning: not looked at.

The kernel checks the rules and throws them away before any process sees them.

Without forwards it checks all instances that run in this network namespace, and with a NAME
in their place that one: it reads back from the kernel what they forward.

JSON, to which fields may be added; the comments are not part of it:
  {\"schema\": 1,                  // another number if fields are renamed or removed
   \"findings\": [{
    \"level\": \"failure\",           // or \"ok\", \"warning\"
    \"subject\": \"firewall\",        // the first word of the line
    \"instance\": \"web\",            // null if what was checked does not run
    \"text\": \"...\",
    \"command\": \"iptables ...\"}]}    // what mends it; null if no command does

Examples:
  Would this work here?
      nodefwd check tcp/80=10.0.0.5:8080

  Why does nothing come through what runs here?
      nodefwd check

  Why does one client get no answer, and does the server?
      nodefwd check --from 192.168.1.7
      nodefwd check --connect

Exit status:
  0  no failure
  1  failures
  2  the input is wrong, and nothing was looked at";

// A test in status/json.rs keeps the shape of the JSON.
const STATUS_NOTES: &str = "\
Shows for each destination
  connections  how many were forwarded to it since these rules were installed, or since
               destinations of the forward were left out or taken in last
  active       how many conntrack entries to it there are now, closed connections included until
               they expire
  unanswered   how many of those entries have had no packet from it: it is down or unreachable,
               refuses in silence, or its replies take another way. Some UDP is one-way, as syslog
  (down)       that it fails, so it gets no new connections; only with NODEFWD_HEALTH
One that is not listed had the connections before the rules were changed; those that run go on.
For each forward
  dropped      how many first packets were dropped because their source may not connect; a client's
               retries count too
For each instance, in the text only if there is something to say
  options      those that differ from the default, as the rules show them
  left out     destinations of a family that get no connections, and why
  invalid      how many packets of forwarded connections were dropped because conntrack found them
               invalid, such as TCP segments out of window after others were lost
All that is counted are first packets, also by the counters that nft shows: none of it is traffic.

JSON, to which fields may be added; the comments are not part of it:
  {\"schema\": 1,                              // another number if fields are renamed or removed
   \"instances\": [{
    \"netns\": null,                            // network namespace, if it is another one
    \"name\": \"web\", \"table\": \"nodefwd-web\",
    \"accepting\": true,                        // new connections; false while draining
    \"reload_failed\": false,                   // true: the rules are those from before
    \"options\": {                              // null if the table has no forwards
      \"src_ranges\": null,                     // or a list; null: all may connect
      \"listen\": \"local\",
      \"balance\": null,                        // null if no forward has several destinations
      \"output\": false, \"masquerade\": true, \"fully_random\": true,
      \"clamp_mss\": false, \"hairpin\": false,
      \"fast_path\": []},                       // the interfaces that it is on
    \"left_out\": [{\"family\": \"ipv6\", \"reason\": \"...\"}],
    \"listen\": [\"192.168.1.1\"],                // addresses
    \"interfaces\": [],                         // none of either: all addresses
    \"owner\": {                                // null if the table has no owner
      \"portid\": 4242,                         // netlink port of its socket
      \"pid\": 4242, \"process\": \"nodefwd\",      // null if it cannot be seen from here
      \"since\": 1700000000},                   // seconds since 1970; null as well
    \"invalid\": 0,
    \"forwarding\": [{                         // for each family that it has forwards of
      \"family\": \"ipv4\",
      \"on\": true, \"reason\": null}],           // false: this host does not forward it, and why
    \"truncated\": false,                       // true: left out, as they are too many
    \"forwards\": [{
      \"protocol\": \"tcp\", \"family\": \"ipv4\", \"ports\": {\"first\": 80, \"last\": 80},
      \"dropped\": 0,
      \"destinations\": [{
        \"to\": {\"address\": \"10.0.0.5\", \"ports\": {\"first\": 8080, \"last\": 8080}},
        \"listed\": true,                       // false: only connections from before go there
        \"connections\": 12,
        \"active\": 3,                         // null if the kernel does not say
        \"unanswered\": 0,                     // null as well
        \"up\": true}]}]}]}                     // null if it is not tried (NODEFWD_HEALTH)

Examples:
  Everything that is forwarded here, once a second:
      nodefwd status --watch

  For the textfile collector of Prometheus' node_exporter, also of the pods on this node:
      nodefwd status --all-namespaces --format prometheus --output nodefwd.prom

  As the readiness probe of a container, which has the container's environment:
      nodefwd status --ready

Exit status:
  0  done; with --ready: the rules are in the kernel and accept connections, which are forwarded
  1  it is not permitted (reading nftables takes CAP_NET_ADMIN too), there is no such instance, or
     with --ready: the rules are not in the kernel, accept no new connections, or forwarding is off
  2  the input is wrong";

/// Forwards ports of a Linux network namespace to other hosts, in the kernel, with nftables.
///
/// Installs its rules in one transaction, waits for a signal, and removes them.
#[derive(Debug, Parser)]
#[command(version, long_version = env!("NODEFWD_VERSION"), after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// `run` if it is missing.
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
    /// Print the nftables ruleset that `run` would install; changes nothing
    Render(Options),
    /// Check whether `run` would work here, or what runs works, and what prevents it; changes nothing
    #[command(after_long_help = CHECK_NOTES)]
    Check(CheckOptions),
    /// Show the instances in this network namespace, or in all
    #[command(after_long_help = STATUS_NOTES)]
    Status(StatusOptions),
    /// Have a running instance read its --env-file again, and wait for it
    ///
    /// Fails, with the reason, if the instance goes on with the rules as they were. HUP does the same
    /// without an answer. Only the user of the instance, and root, may do this.
    Reload {
        /// The instance [default: the one that the environment configures]
        name: Option<Name>,
    },
    /// Print the version
    Version,
    #[cfg(feature = "completions")]
    /// Print a script with which a shell completes the command line
    Completions {
        /// Which shell it is for
        shell: Shell,
    },
}

/// What is logged to standard error, and how.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Logging")]
pub struct Verbosity {
    /// Log more; twice for everything, also of libraries. RUST_LOG=error|warn|info|debug|trace|off
    /// overrides this
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Log warnings and errors only; twice for errors only. Colours appear on a terminal only
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "verbose")]
    pub quiet: u8,

    /// How the log is written: text, or json, one object on each line [default: text]
    #[arg(value_name = "FORMAT", global = true, option = OptionName::LOG_FORMAT)]
    pub log_format: Option<OsString>,
}

impl Verbosity {
    /// What the environment says of it.
    pub fn from_environment() -> Self {
        Verbosity {
            log_format: env::var_os(OptionName::LOG_FORMAT.variable()),
            ..Verbosity::default()
        }
    }

    /// The least important level that is logged.
    pub fn level(&self) -> LevelFilter {
        match i16::from(self.verbose) - i16::from(self.quiet) {
            ..=-2 => LevelFilter::Error,
            -1 => LevelFilter::Warn,
            0 => LevelFilter::Info,
            1 => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        }
    }

    /// The same for libraries.
    pub fn level_of_libraries(&self) -> LevelFilter {
        match self.level() {
            LevelFilter::Trace => LevelFilter::Trace,
            level => level.min(LevelFilter::Warn),
        }
    }

    /// How the log is written.
    pub fn format(&self) -> Result<LogFormat, ConfigError> {
        log_format(&self.log_format)
    }
}

/// The arguments with the command before what is said of the log: clap takes no word for a command after an
/// option.
pub fn command_first(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut index = 1;
    while let Some(words) = arguments.get(index).and_then(|word| of_log(word)) {
        index += words;
    }
    let is_command = |word: &OsString| Cli::command().find_subcommand(word).is_some();
    if index > 1 && arguments.get(index).is_some_and(is_command) {
        arguments[1..=index].rotate_right(1);
    }
    arguments
}

/// How many words an option is that says something of the log; `None` for any other word.
fn of_log(word: &OsStr) -> Option<usize> {
    let word = word.to_str()?;
    let short = |letters: &str| !letters.is_empty() && letters.chars().all(|c| "vq".contains(c));
    match word {
        "--verbose" | "--quiet" => Some(1),
        "--log-format" => Some(2),
        _ => {
            let is_one =
                word.starts_with("--log-format=") || word.strip_prefix('-').is_some_and(short);
            is_one.then_some(1)
        }
    }
}

/// How similar two words are at least if one may be meant by the other: "true" is none of the commands.
const SIMILARITY: f64 = 0.8;

/// The first argument, if it looks like no forward but like a command, and that command.
pub fn misspelt_command(options: &Options) -> Option<(String, String)> {
    let word = options.forwards.first()?.to_str()?;
    if word.contains(['/', '=']) {
        return None;
    }
    let program = Cli::command();
    let similar = |command: &clap::Command| {
        let similarity = strsim::jaro(word, command.get_name());
        (similarity > SIMILARITY).then(|| (similarity, command.get_name().to_owned()))
    };
    let found = program.get_subcommands().filter_map(similar);
    let (_, command) = found.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    Some((word.to_owned(), command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_comes_before_what_is_said_of_the_log() {
        for (line, expected) in [
            (
                "nodefwd -q render tcp/80=10.0.0.5",
                "nodefwd render -q tcp/80=10.0.0.5",
            ),
            (
                "nodefwd -vv --log-format json status",
                "nodefwd status -vv --log-format json",
            ),
            (
                "nodefwd --log-format=json -q check x",
                "nodefwd check --log-format=json -q x",
            ),
            (
                "nodefwd -q tcp/80=10.0.0.5 render",
                "nodefwd -q tcp/80=10.0.0.5 render",
            ),
            (
                "nodefwd --name render render",
                "nodefwd --name render render",
            ),
            ("nodefwd --log-format", "nodefwd --log-format"),
            ("nodefwd", "nodefwd"),
        ] {
            let arguments = line.split(' ').map(OsString::from).collect();
            assert_eq!(command_first(arguments).join(OsStr::new(" ")), expected);
        }
    }

    #[test]
    fn libraries_are_logged_from_twice_verbose_on() {
        let libraries = |verbose, quiet| {
            let verbosity = Verbosity {
                verbose,
                quiet,
                ..Verbosity::default()
            };
            verbosity.level_of_libraries()
        };
        assert_eq!(libraries(0, 2), LevelFilter::Error);
        assert_eq!(libraries(0, 0), LevelFilter::Warn);
        assert_eq!(libraries(1, 0), LevelFilter::Warn);
        assert_eq!(libraries(2, 0), LevelFilter::Trace);
    }

    #[test]
    fn a_misspelt_command_is_recognised() {
        let misspelt = |word: &str| {
            let options = Options {
                forwards: vec![word.into()],
                ..Options::default()
            };
            misspelt_command(&options).map(|(_, command)| command)
        };
        assert_eq!(misspelt("rendr").as_deref(), Some("render"));
        assert_eq!(misspelt("stauts").as_deref(), Some("status"));
        for word in ["tcp/80", "80", "true", "status=1"] {
            assert_eq!(misspelt(word), None, "{word}");
        }
    }
}
