//! Arguments to command to exit status.

#![forbid(unsafe_code)]

use clap::{CommandFactory, Parser};
use nodefwd::check::{self, CheckError};
use nodefwd::cli::{Cli, Command};
use nodefwd::config::{Config, ConfigError, Name, Options};
use nodefwd::instance::{self, InstanceError, Signals};
use nodefwd::status::{self, StatusError};
use nodefwd::{logging, ruleset::Ruleset};
use std::env;
use std::io::{self, Write};
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
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    logging::init(cli.verbosity.level());
    match run(cli.command, cli.options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", logging::with_causes(&error));
            match error {
                MainError::Input(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Prints help and version as they are; of an error, only clap's first paragraph, on one line: it says what
/// is wrong, and the others would hide that in a log.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let text = error.to_string();
    let lines = text.lines().map(str::trim);
    let problem: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let command = env::args().nth(1).unwrap_or_default();
    let help = match Cli::command().find_subcommand(&command) {
        Some(_) => format!("nodefwd {command} --help"),
        None => "nodefwd --help".into(),
    };
    eprintln!("{}; {help} lists what is allowed", problem.join(" "));
    ExitCode::from(2)
}

/// `options` are those without a command, or in the environment.
fn run(command: Option<Command>, options: Options) -> Result<(), MainError> {
    match command.unwrap_or(Command::Run(options.clone())) {
        Command::Run(options) => {
            // Reading many forwards takes a while too.
            let signals = Signals::register().map_err(InstanceError::from)?;
            instance::run(Config::new(&options.with_env_file()?)?, &signals)?;
        }
        Command::Render(options) => {
            let config = Config::new(&options.with_env_file()?)?;
            config.log_warnings();
            write!(io::stdout().lock(), "{}", Ruleset::new(&config))?;
        }
        Command::Check(options) => check::run(Config::new(&options.with_env_file()?)?)?,
        Command::Status(mut status) => {
            if status.ready && status.name.is_none() {
                status.name = Name::read(&options.with_env_file()?)?;
            }
            status::run(&status)?;
        }
        #[cfg(feature = "completions")]
        Command::Completions { shell } => write!(io::stdout().lock(), "{}", shell.script())?,
    }
    Ok(())
}
