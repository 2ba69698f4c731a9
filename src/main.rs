//! Arguments to command to exit status.

#![forbid(unsafe_code)]

use clap::CommandFactory;
use nodefwd::check::{self, CheckError, Subject};
use nodefwd::cli::{self, Cli, Command, Verbosity};
use nodefwd::config::{self, Config, ConfigError, HostName, LookUp, Name, OptionName, Options};
use nodefwd::fast_path;
use nodefwd::instance::{self, FileWatch, InstanceError, RequestError, Signals};
use nodefwd::logging::{self, LogFormat};
use nodefwd::resolver::{self, MAX_TIME, MAX_TIME_OF_RELOAD};
use nodefwd::ruleset::Ruleset;
use nodefwd::status::{self, StatusError};
use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use thiserror::Error;

#[derive(Debug, Error)]
enum MainError {
    #[error(transparent)]
    Input(#[from] ConfigError),
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error("not reloaded")]
    Reload(#[from] RequestError),
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
    #[error("'{word}' is no command, and no forward: did you mean '{command}'?")]
    Command { word: String, command: String },
    #[error("the command '{0}' goes before its options: nodefwd {0} ...")]
    CommandFirst(String),
}

impl MainError {
    /// Why standard output could not be written.
    fn output_error(&self) -> Option<io::ErrorKind> {
        match self {
            MainError::Output(error)
            | MainError::Check(CheckError::Output(error))
            | MainError::Status(StatusError::Output(error)) => Some(error.kind()),
            _ => None,
        }
    }
}

fn main() -> ExitCode {
    let arguments = cli::command_first(env::args_os().collect());
    let cli = match Cli::read(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // What the command line says of the log is not known.
            let _ = start_log(&Verbosity::from_environment());
            return usage(&error, arguments.get(1));
        }
    };
    let forwards = matches!(cli.command, None | Some(Command::Run(_)));
    let result = match start_log(&cli.verbosity) {
        Ok(()) => run(cli.command, cli.options),
        Err(error) => Err(error.into()),
    };
    let failed = |error: MainError| {
        if forwards {
            instance::notify_failure(&logging::with_causes(&error));
        }
        failed(&error)
    };
    result.map_or_else(failed, |()| ExitCode::SUCCESS)
}

/// As text if it cannot be known how else, so that somebody reads why.
fn start_log(verbosity: &Verbosity) -> Result<(), ConfigError> {
    let format = verbosity.format();
    let of_libraries = verbosity.level_of_libraries();
    let shown = *format.as_ref().unwrap_or(&LogFormat::Text);
    logging::init(shown, verbosity.level(), of_libraries);
    format.map(|_| ())
}

fn failed(error: &MainError) -> ExitCode {
    match error.output_error() {
        // Whoever has read the first lines of the output, and closed it, has what they want.
        Some(io::ErrorKind::BrokenPipe) => {}
        // What stands for a descriptor that was closed at the start is a socket without a peer.
        Some(io::ErrorKind::NotConnected) => {
            log::error!("cannot write to standard output: it is closed");
        }
        _ => log::error!("{}", logging::with_causes(error)),
    }
    match error {
        MainError::Input(error) if error.is_unresolved() => ExitCode::FAILURE,
        MainError::Input(_) | MainError::Command { .. } | MainError::CommandFirst(_) => {
            ExitCode::from(2)
        }
        _ => ExitCode::FAILURE,
    }
}

/// Prints help and version as they are; of an error, only clap's first paragraph, and what may be meant, on one
/// line: the others would hide that in a log.
fn usage(error: &clap::Error, command: Option<&OsString>) -> ExitCode {
    if !error.use_stderr() {
        let printed = error.print().and_then(|()| io::stdout().flush());
        return printed.map_or_else(|error| failed(&error.into()), |()| ExitCode::SUCCESS);
    }
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n");
    let problem = paragraphs
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    let mut said: String = problem.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let tips = paragraphs.filter_map(|paragraph| paragraph.trim().strip_prefix("tip: "));
    for tip in tips.filter(|tip| tip.contains("similar")) {
        said += "; ";
        said += tip;
    }
    let known = |command: &&OsString| Cli::command().find_subcommand(command).is_some();
    let command = command.filter(known).and_then(|command| command.to_str());
    if matches!(command, None | Some("run")) {
        instance::notify_failure(&said);
    }
    let command = command.map_or(String::new(), |command| format!("{command} "));
    log::error!("{said}; nodefwd {command}--help lists what is allowed");
    ExitCode::from(2)
}

/// Reads all options, and warns of variables that look like one.
fn config(options: &Options, look_up: LookUp<'_>) -> Result<Config, ConfigError> {
    config::warn_of_environment();
    Config::with_names(&*options.with_env_file()?, look_up)
}

/// `options` are those without a command, or in the environment.
fn run(command: Option<Command>, options: Options) -> Result<(), MainError> {
    let misspelt = cli::misspelt_command(&options).filter(|_| command.is_none());
    if let Some((word, command)) = misspelt {
        return Err(if word == command {
            MainError::CommandFirst(word)
        } else {
            MainError::Command { word, command }
        });
    }
    let look_up = |names: &[HostName]| resolver::look_up(names, MAX_TIME, None);
    let (command, options) = match command {
        Some(command) => (command, options),
        None => (Command::Run(options), Options::default()),
    };
    match command {
        Command::Run(options) => {
            // Reading many forwards takes a while too.
            let signals =
                Signals::register(options.have_env_file()).map_err(InstanceError::from)?;
            // Before the file is read, so that no change goes unnoticed.
            let file = options.env_file.as_deref().map(FileWatch::open);
            let look_up = |names: &[HostName], max_time| {
                resolver::look_up(names, max_time, Some(signals.as_fd()))
            };
            let config = config(&options, &|names| look_up(names, MAX_TIME))?;
            let look_up = |names: &[HostName]| look_up(names, MAX_TIME_OF_RELOAD);
            let read_again = |config: &Config| config.read_again(&options, &look_up);
            instance::run(config, &signals, file, &read_again)?;
        }
        Command::Render(options) => {
            let config = config(&options, &look_up)?;
            config.log_warnings();
            let mut ruleset = Ruleset::new(&config);
            ruleset.add_fast_path(&config, fast_path::names(&config));
            write!(io::stdout().lock(), "{ruleset}")?;
        }
        Command::Check(check) => {
            config::warn_of_environment();
            let options = check.options.with_env_file()?;
            check::run(Subject::read(&options, &look_up)?, &check)?;
        }
        Command::Status(mut status) => {
            // For PID 1 of a container a signal has no effect otherwise (pid_namespaces(7)).
            let signals = status.watch.then(|| Signals::register(false));
            let _signals = signals.transpose().map_err(InstanceError::from)?;
            if status.ready && status.name.is_none() {
                status.name = Name::read(&*options.with_env_file()?)?;
            }
            status::run(&status)?;
        }
        Command::Reload { name } => {
            let configured = || Name::read(&*options.with_env_file()?);
            let name = name.map_or_else(configured, |name| Ok(Some(name)))?;
            let missing = || ConfigError::Missing {
                option: OptionName::NAME,
                fix: "the name of the instance that is to reload",
            };
            instance::request_reload(&name.ok_or_else(missing)?)?;
        }
        Command::Version => writeln!(
            io::stdout(),
            "{}",
            Cli::command().render_long_version().trim()
        )?,
        #[cfg(feature = "completions")]
        Command::Completions { shell } => write!(io::stdout().lock(), "{}", shell.script())?,
    }
    io::stdout().flush()?;
    Ok(())
}
