//! The command line: commands and logging.

mod notes;

use crate::check::CheckOptions;
#[cfg(feature = "completions")]
use crate::completions::Shell;
use crate::config::{ArgExt, ConfigError, Name, OptionName, Options, log_format};
use crate::logging::LogFormat;
use crate::status::StatusOptions;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};
use log::LevelFilter;
use notes::{CHECK_NOTES, EXAMPLES, STATUS_NOTES};
use std::env;
use std::ffi::{OsStr, OsString};

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

impl Cli {
    /// Reads the command line; fails with what is to be said of it.
    ///
    /// Each command that has the options defines all of them, before any is read: as much memory again for
    /// each, which a start without a command does without.
    pub fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let is_forward = |word: &OsString| word.as_encoded_bytes().contains(&b'=');
        if arguments.get(1).is_none_or(is_forward) {
            if let Ok(WithoutCommand { options, verbosity }) =
                WithoutCommand::try_parse_from(arguments)
            {
                return Ok(Cli {
                    command: None,
                    options,
                    verbosity,
                });
            }
        }
        Cli::try_parse_from(arguments)
    }
}

/// The command line without a command.
#[derive(Parser)]
struct WithoutCommand {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    verbosity: Verbosity,
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
    fn without_a_command_the_line_means_the_same() {
        for line in [
            "nodefwd",
            "nodefwd tcp/80=10.0.0.5",
            "nodefwd tcp/80=10.0.0.5 -vv status",
            "nodefwd tcp/80=10.0.0.5 --name x",
            "nodefwd --name=x tcp/80=10.0.0.5 --log-format json -q",
            "nodefwd --name=x status",
            "nodefwd --strict=true render tcp/80=10.0.0.5",
            "nodefwd tcp/80=10.0.0.5 --help",
            "nodefwd tcp/80=10.0.0.5 --version",
            "nodefwd --name=x help",
            "nodefwd tcp/80=10.0.0.5 --no-such-option",
            "nodefwd tcp/80=10.0.0.5 -q -v",
            "nodefwd status --ready",
        ] {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let shown = |read| {
                format!(
                    "{:?}",
                    Result::map_err(read, |error: clap::Error| error.to_string())
                )
            };
            assert_eq!(
                shown(Cli::read(&arguments)),
                shown(Cli::try_parse_from(&arguments)),
                "{line}"
            );
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
