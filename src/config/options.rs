//! Every option, with its variable, its flag and its help.
//!
//! The module of an option's name in `config` reads it, or `value.rs`. What it says is carried out by
//! the module of its name in `ruleset` (`forwards`, `sources`, `balance`, `listen`, `output`,
//! `masquerade`, `clamp_mss`, `hairpin`, `fast_path`) or `instance` (`replace`, `drain`), for `name` by `lock.rs`, and for
//! `strict` by `sysctl.rs`, which knows what cannot be forwarded.

use super::env_file::{EnvFile, EnvFileError};
use super::typos::Variables;
use super::{ConfigError, Location, shown};
use clap::{Arg, Args};
use log::warn;
use std::{borrow::Cow, env, ffi::OsString, fmt, path::Path};

/// An option's two names: its environment variable and its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionName {
    variable: &'static str,
    /// Without its dashes; `None` for the positional arguments.
    flag: Option<&'static str>,
}

impl OptionName {
    pub const FORWARDS: Self = Self::positional("NODEFWD_FORWARDS");
    pub const DEST_IPS: Self = Self::new("DEST_IPS", "dest-ips");
    pub const DEST_PROTO: Self = Self::new("DEST_PROTO", "dest-proto");
    pub const SRC_PORT: Self = Self::new("SRC_PORT", "src-port");
    pub const DEST_PORT: Self = Self::new("DEST_PORT", "dest-port");
    pub const SRC_RANGES: Self = Self::new("SRC_RANGES", "src-ranges");
    pub const BALANCE: Self = Self::new("NODEFWD_BALANCE", "balance");
    pub const LISTEN: Self = Self::new("NODEFWD_LISTEN", "listen");
    pub const OUTPUT: Self = Self::new("NODEFWD_OUTPUT", "output");
    pub const MASQUERADE: Self = Self::new("NODEFWD_MASQUERADE", "masquerade");
    pub const FULLY_RANDOM: Self = Self::new("NODEFWD_FULLY_RANDOM", "fully-random");
    pub const CLAMP_MSS: Self = Self::new("NODEFWD_CLAMP_MSS", "clamp-mss");
    pub const HAIRPIN: Self = Self::new("NODEFWD_HAIRPIN", "hairpin");
    pub const NAME: Self = Self::new("NODEFWD_NAME", "name");
    pub const STRICT: Self = Self::new("NODEFWD_STRICT", "strict");
    pub const REPLACE: Self = Self::new("NODEFWD_REPLACE", "replace");
    pub const DRAIN: Self = Self::new("NODEFWD_DRAIN", "drain");
    pub const OWNER: Self = Self::new("NODEFWD_OWNER", "owner");
    pub const ENV_FILE: Self = Self::new("NODEFWD_ENV_FILE", "env-file");
    pub const HEALTH: Self = Self::new("NODEFWD_HEALTH", "health");
    pub const HEALTH_RESET: Self = Self::new("NODEFWD_HEALTH_RESET", "health-reset");
    pub const WATCH: Self = Self::new("NODEFWD_WATCH", "watch-file");
    pub const FAST_PATH: Self = Self::new("NODEFWD_FAST_PATH", "fast-path");
    pub const LOG_FORMAT: Self = Self::new("NODEFWD_LOG_FORMAT", "log-format");

    const fn new(variable: &'static str, flag: &'static str) -> Self {
        let flag = Some(flag);
        OptionName { variable, flag }
    }

    const fn positional(variable: &'static str) -> Self {
        let flag = None;
        OptionName { variable, flag }
    }

    /// Those of all options, and of the log.
    pub fn all() -> Vec<Self> {
        let mut options = Options::default();
        let of_texts = options.values_mut().map(|(name, _)| name);
        let others = [Self::FORWARDS, Self::ENV_FILE, Self::LOG_FORMAT];
        of_texts.chain(others).collect()
    }

    /// The environment variable alone.
    pub fn variable(&self) -> &'static str {
        self.variable
    }
}

impl fmt::Display for OptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flag {
            Some(flag) => write!(f, "{} (--{flag})", self.variable),
            None => write!(f, "{} (FORWARD argument)", self.variable),
        }
    }
}

/// Variables that a file cannot set: the log begins before the file is read.
const NOT_IN_FILE: [&str; 3] = [
    OptionName::ENV_FILE.variable,
    OptionName::LOG_FORMAT.variable,
    "RUST_LOG",
];

/// What the options' definitions have in common.
pub trait ArgExt {
    /// Gives an argument the option's names. The help does not show the variable's value.
    fn option(self, name: OptionName) -> Self;

    /// The same for an option that is true or false; the bare flag is true.
    fn boolean(self, name: OptionName) -> Self;
}

impl ArgExt for Arg {
    fn option(self, name: OptionName) -> Self {
        let arg = self.env(name.variable).hide_env_values(true);
        match name.flag {
            Some(flag) => arg.long(flag),
            None => arg,
        }
    }

    fn boolean(self, name: OptionName) -> Self {
        let arg = self.option(name).value_name("BOOL").num_args(0..=1);
        arg.require_equals(true).default_missing_value("true")
    }
}

/// What to forward and how, as text: each type of [`config`](super) reads its own.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What to forward")]
#[allow(missing_docs)] // the help says what each is
pub struct Options {
    /// Forwards: PROTO/PORT[-PORT]=DEST[,DEST...], where DEST is HOST, HOST:PORT or [IP6]:PORT
    ///
    /// HOST is an address or a name, which is looked up in /etc/hosts and DNS. Several forwards are separated
    /// by white space. Without a port, a destination gets the connection on the
    /// port it came to. A range goes to one port, the same ports, or a range of equal length. PROTO and
    /// PORT may be lists, as in tcp,udp/53=DEST and tcp/80,8000-8100=DEST, and a port may be the name
    /// of a service that /etc/services has: tcp/https=DEST.
    // clap shows this as it stands.
    #[allow(rustdoc::broken_intra_doc_links)]
    #[arg(value_name = "FORWARD", option = OptionName::FORWARDS)]
    pub forwards: Vec<OsString>,

    /// Addresses to forward to, IPv4 and IPv6, or names, separated by commas or white space
    #[arg(value_name = "HOST,...", option = OptionName::DEST_IPS)]
    pub dest_ips: Option<OsString>,

    /// Protocols: tcp, udp, sctp
    #[arg(value_name = "PROTO,...", option = OptionName::DEST_PROTO)]
    pub dest_proto: Option<OsString>,

    /// Ports to forward: a list of ports and ranges
    #[arg(value_name = "PORT,...", option = OptionName::SRC_PORT)]
    pub src_port: Option<OsString>,

    /// Ports at the destination: one for all, or one for each of SRC_PORT [default: the same]
    #[arg(value_name = "PORT,...", option = OptionName::DEST_PORT)]
    pub dest_port: Option<OsString>,

    /// Sources that may connect, as CIDRs or addresses [default: any source]
    #[arg(value_name = "CIDR,...", option = OptionName::SRC_RANGES)]
    pub src_ranges: Option<OsString>,

    /// How a connection is given one of several destinations: random, round-robin, or source,
    /// which keeps a client with one destination [default: random]
    #[arg(help_heading = "How to forward", value_name = "HOW", option = OptionName::BALANCE)]
    pub balance: Option<OsString>,

    /// Which packets to forward: local, those sent to an address of this namespace; any, also those
    /// that this host only routes; or a list of addresses and interfaces, those sent to one of these
    /// addresses, and those that come in on one of these interfaces for this host [default: local]
    #[arg(help_heading = "How to forward", value_name = "WHERE", option = OptionName::LISTEN)]
    pub listen: Option<OsString>,

    /// Forward connections made on this host itself to its own addresses too, except to loopback
    /// addresses [default: false]
    #[arg(help_heading = "How to forward", boolean = OptionName::OUTPUT)]
    pub output: Option<OsString>,

    /// Let the destination see this host's address instead of the client's; false needs a route
    /// from the destination back through this host [default: true]
    #[arg(help_heading = "How to forward", boolean = OptionName::MASQUERADE)]
    pub masquerade: Option<OsString>,

    /// Give masqueraded connections random source ports; false keeps the client's port where it is free
    /// [default: true]
    #[arg(help_heading = "How to forward", boolean = OptionName::FULLY_RANDOM)]
    pub fully_random: Option<OsString>,

    /// Lower the MSS of forwarded TCP connections to what fits the path MTU, for paths on which ICMP is
    /// dropped [default: false]
    #[arg(help_heading = "How to forward", boolean = OptionName::CLAMP_MSS)]
    pub clamp_mss: Option<OsString>,

    /// Also forward connections that a destination makes to the forwarded port [default: false]
    #[arg(help_heading = "How to forward", boolean = OptionName::HAIRPIN)]
    pub hairpin: Option<OsString>,

    /// Let established TCP and UDP connections bypass most of what the kernel does with forwarded packets,
    /// other programs' rules too: on the interfaces that carry them (auto), on these, or not at all
    /// [default: off]
    #[arg(help_heading = "How to forward", value_name = "off|auto|DEV,...", option = OptionName::FAST_PATH)]
    pub fast_path: Option<OsString>,

    /// Try to connect to each TCP destination of a forward with several once in this time; one that fails
    /// three times in a row gets no new connections until it succeeds twice [default: 0, never]
    #[arg(help_heading = "How to forward", value_name = "SECONDS", option = OptionName::HEALTH)]
    pub health: Option<OsString>,

    /// End the running connections to a destination that fails, so that clients connect again
    /// [default: false]
    #[arg(help_heading = "How to forward", boolean = OptionName::HEALTH_RESET)]
    pub health_reset: Option<OsString>,

    /// The instance's name; its table is nodefwd-NAME [default: from the first forward: tcp-80]
    #[arg(help_heading = "The instance", value_name = "NAME", option = OptionName::NAME)]
    pub name: Option<OsString>,

    /// Fail if a family among the destinations cannot be forwarded, instead of going on with the
    /// other one [default: false]
    #[arg(help_heading = "The instance", boolean = OptionName::STRICT)]
    pub strict: Option<OsString>,

    /// Take the place of a running instance of the same name, which then ends: no connection is
    /// refused or broken meanwhile. If none runs, start as usual [default: false]
    #[arg(help_heading = "The instance", boolean = OptionName::REPLACE)]
    pub replace: Option<OsString>,

    /// After a signal accept no new connections, but let running ones go on for at most this time; a
    /// second signal ends the wait [default: 0]
    #[arg(help_heading = "The instance", value_name = "SECONDS", option = OptionName::DRAIN)]
    pub drain: Option<OsString>,

    /// A file with variables of this list, one NAME=VALUE a line, as systemd reads an EnvironmentFile.
    /// Flags and the environment go before it. HUP reads it again and changes the rules in place
    #[arg(help_heading = "The instance", value_name = "FILE", option = OptionName::ENV_FILE)]
    pub env_file: Option<OsString>,

    /// Read that file again as soon as it changes, also by the symbolic links of a Kubernetes volume
    /// [default: false]
    #[arg(help_heading = "The instance", boolean = OptionName::WATCH)]
    pub watch_file: Option<OsString>,

    /// The options that were read from the file, with the lines that they begin in.
    #[arg(skip)]
    pub locations: Vec<(OptionName, Location)>,

    /// Have the kernel refuse other processes' changes to the table; false does as on a kernel before
    /// 5.12
    #[arg(hide = true, boolean = OptionName::OWNER)]
    pub owner: Option<OsString>,
}

impl Options {
    /// Takes what neither a flag nor the environment sets from the file that `NODEFWD_ENV_FILE` names, if
    /// it names one. Logs a warning for lines of it that assign nothing.
    pub fn with_env_file(&self) -> Result<Cow<'_, Self>, ConfigError> {
        self.with_variables_of(EnvFile::read)
    }

    /// The same for an instance that runs.
    pub fn with_env_file_again(&self) -> Result<Cow<'_, Self>, ConfigError> {
        self.with_variables_of(EnvFile::read_again)
    }

    fn with_variables_of(
        &self,
        read: fn(&Path) -> Result<EnvFile, EnvFileError>,
    ) -> Result<Cow<'_, Self>, ConfigError> {
        let Some(path) = &self.env_file else {
            return Ok(Cow::Borrowed(self));
        };
        let file = read(Path::new(path)).map_err(|problem| ConfigError::EnvFile {
            path: shown(&path.to_string_lossy()),
            problem,
        })?;
        file.warn_of_ignored();
        let variables = Variables::all();
        for (name, line) in file.names() {
            let warning = if NOT_IN_FILE.contains(&name) {
                Some(format!(
                    "{name} is ignored: set it in the environment, as it must be known before this file is read"
                ))
            } else {
                variables.warning(name)
            };
            if let Some(warning) = warning {
                warn!("{}: {warning}", file.location(line));
            }
        }
        let mut options = self.clone();
        let mut locations = Vec::new();
        for (option, value) in options.values_mut() {
            if let (None, Some((text, line))) = (&value, file.get(option.variable)) {
                *value = Some(text.to_owned());
                locations.push((option, file.location(line)));
            }
        }
        let forwards = OptionName::FORWARDS;
        if let (true, Some((text, line))) = (self.forwards.is_empty(), file.get(forwards.variable))
        {
            options.forwards.push(text.to_owned());
            locations.push((forwards, file.location(line)));
        }
        options.locations = locations;
        Ok(Cow::Owned(options))
    }

    /// Whether there is a file that can be read again.
    pub fn have_env_file(&self) -> bool {
        self.env_file.is_some()
    }

    /// Whether the file sets it.
    pub fn is_in_file(&self, option: OptionName) -> bool {
        self.locations.iter().any(|(located, _)| *located == option)
    }

    /// The options that are one text and neither the environment nor the file sets, but a flag.
    pub fn flags(&self) -> Vec<OptionName> {
        let mut options = self.clone();
        let is_flag = |option: OptionName, value: &OsString| {
            !self.is_in_file(option) && env::var_os(option.variable).as_ref() != Some(value)
        };
        let file = self.env_file.clone();
        let file = file.map(|path| (OptionName::ENV_FILE, path));
        let values = options.values_mut();
        let values = values.filter_map(|(option, value)| Some((option, value.take()?)));
        let set = values.chain(file);
        let flags = set.filter(|(option, value)| is_flag(*option, value));
        flags.map(|(option, _)| option).collect()
    }

    /// Every option that is one text; not the forwards, nor the file.
    fn values_mut(&mut self) -> impl Iterator<Item = (OptionName, &mut Option<OsString>)> {
        [
            (OptionName::DEST_IPS, &mut self.dest_ips),
            (OptionName::DEST_PROTO, &mut self.dest_proto),
            (OptionName::SRC_PORT, &mut self.src_port),
            (OptionName::DEST_PORT, &mut self.dest_port),
            (OptionName::SRC_RANGES, &mut self.src_ranges),
            (OptionName::BALANCE, &mut self.balance),
            (OptionName::LISTEN, &mut self.listen),
            (OptionName::OUTPUT, &mut self.output),
            (OptionName::MASQUERADE, &mut self.masquerade),
            (OptionName::FULLY_RANDOM, &mut self.fully_random),
            (OptionName::CLAMP_MSS, &mut self.clamp_mss),
            (OptionName::HAIRPIN, &mut self.hairpin),
            (OptionName::FAST_PATH, &mut self.fast_path),
            (OptionName::NAME, &mut self.name),
            (OptionName::STRICT, &mut self.strict),
            (OptionName::REPLACE, &mut self.replace),
            (OptionName::DRAIN, &mut self.drain),
            (OptionName::WATCH, &mut self.watch_file),
            (OptionName::HEALTH, &mut self.health),
            (OptionName::HEALTH_RESET, &mut self.health_reset),
            (OptionName::OWNER, &mut self.owner),
        ]
        .into_iter()
    }

    /// Adds where in the file the option stands that an error is about, if it comes from there.
    pub(super) fn locate(&self, error: ConfigError) -> ConfigError {
        let about = error.option();
        let mut locations = self.locations.iter();
        match locations.find(|(option, _)| Some(*option) == about) {
            Some((_, location)) => ConfigError::InFile {
                location: location.clone(),
                error: Box::new(error),
            },
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;
    use std::ffi::OsStr;

    #[test]
    fn every_variable_can_stand_in_the_file() {
        let command = Options::augment_args(Command::new("nodefwd"));
        let variables = command.get_arguments().filter_map(Arg::get_env);
        let mut variables: Vec<_> = variables.collect();
        variables.retain(|name| {
            !["NODEFWD_FORWARDS", "NODEFWD_ENV_FILE"]
                .map(OsStr::new)
                .contains(name)
        });
        let mut options = Options::default();
        let in_file: Vec<_> = options
            .values_mut()
            .map(|(option, _)| OsStr::new(option.variable))
            .collect();
        variables.sort();
        let mut sorted = in_file;
        sorted.sort();
        assert_eq!(sorted, variables);
    }
}
