//! What the user asked for. Parse, don't validate: in a [`Config`] no value can be wrong.
//!
//! Each type reads its own option; here the values come together.

mod address;
mod balance;
mod brackets;
mod classic;
mod destination;
mod env_file;
mod error;
mod fast_path;
mod forward;
mod health;
mod host;
mod interface;
mod listen;
mod name;
mod names;
mod options;
mod port;
mod port_name;
mod protocol;
mod service;
mod setting;
mod sources;
mod summary;
mod typos;
mod value;

pub use address::{AddressError, check_unicast, is_link_local};
pub use balance::{Balance, BalanceError};
pub use destination::{Backend, Destination, WrittenDestination};
pub use env_file::{EnvFileError, Location};
pub use error::{ConfigError, Problem};
pub use fast_path::{FastPath, FastPathError};
pub use forward::{Forward, ForwardError};
pub use health::Down;
pub use host::{Answer, Failure, Host, HostName};
pub use interface::{InterfaceError, InterfaceName};
pub use listen::{Listen, ListenError};
pub use name::{Name, NameError, TABLE_PREFIX};
pub use names::{LookUp, going_on};
pub use options::{ArgExt, OptionName, Options};
pub use port::{LengthError, PortError, PortRange};
pub use protocol::{Family, Protocol, ProtocolError};
pub use service::{Service, ServiceSet};
pub use setting::shown;
pub use sources::{Allowed, SourceError, Sources};
pub use summary::{first_few, summary};
pub use typos::warn_of_environment;
pub use value::{BooleanError, SecondsError, log_format};

use forward::ForwardSpec;
use log::warn;
use setting::Setting;
use std::time::Duration;
use value::{boolean, seconds};

/// Everything that decides which rules an instance installs, and how it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub name: Name,
    /// At least one; no two of them overlap. In order of family, protocol and port.
    pub forwards: Vec<Forward>,
    /// The families whose forwards were dropped, as this host does not forward them.
    pub not_forwarded: Vec<Family>,
    pub sources: Sources,
    pub balance: Balance,
    pub listen: Listen,
    /// Whether connections made on this host itself are forwarded too.
    pub output: bool,
    /// Whether the destination sees this host's address instead of the client's.
    pub masquerade: bool,
    /// Whether masqueraded connections get random source ports, instead of the client's where it is free.
    pub fully_random: bool,
    /// Whether the MSS of TCP connections is lowered to what fits the path MTU.
    pub clamp_mss: bool,
    /// Whether a destination's own connection to the forwarded port is forwarded.
    pub hairpin: bool,
    /// Whether a flowtable takes established connections over.
    pub fast_path: FastPath,
    /// Whether a family that cannot be forwarded is an error.
    pub strict: bool,
    /// Whether the table belongs to the process, if the kernel can do that.
    pub owner: bool,
    /// Whether a running instance of this name is replaced.
    pub replace: bool,
    /// How long running connections may go on after the signal to end.
    pub drain: Duration,
    /// How often destinations are tried; zero: never.
    pub health: Duration,
    /// Whether running connections to a destination that fails are ended.
    pub health_reset: bool,
    /// Whether the file of options is read again when it changes.
    pub watch: bool,
    /// What the names among the destinations stand for, in their order.
    pub answers: Vec<Answer>,
    /// The forwards as they were written, if there are names among their destinations.
    written: Vec<ForwardSpec>,
}

/// How many ports may be mapped to other ports, counted for each destination. Each is an element of a
/// map: this many take a second and 40 MB.
const MAX_MAPPED_PORTS: usize = 1 << 18;

/// How many destinations balanced forwards may have in all. Each is a chain, a rule and an element: this
/// many take two seconds and 100 MB.
const MAX_BALANCED_DESTINATIONS: usize = 1 << 16;

impl Config {
    /// Reads all options. Logs a warning for what is accepted but surely not meant: an address or a
    /// protocol listed twice, host bits in a range. Refuses the first option that is wrong. Names have no
    /// address.
    pub fn new(options: &Options) -> Result<Self, ConfigError> {
        Self::with_names(options, &|_| Vec::new())
    }

    /// The same with names among the destinations, which are looked up once all else is right.
    pub fn with_names(options: &Options, look_up: LookUp<'_>) -> Result<Self, ConfigError> {
        Self::read(options, look_up, &[]).map_err(|error| options.locate(error))
    }

    /// Reads the options' file again, for an instance that runs with this config. Refuses a change of what
    /// only a restart can change.
    pub fn read_again(&self, options: &Options, look_up: LookUp<'_>) -> Result<Self, ConfigError> {
        let mut options = options.with_env_file_again()?.into_owned();
        // The name by default is that of the first forward when the instance was started.
        let name = || self.name.to_string().into();
        options.name.get_or_insert_with(name);
        let read = Self::read(&options, look_up, &self.answers);
        let config = read.map_err(|error| options.locate(error))?;
        let fixed = [
            (OptionName::NAME, config.name != self.name),
            (OptionName::OWNER, config.owner != self.owner),
            (OptionName::WATCH, config.watch != self.watch),
        ];
        match fixed.into_iter().find(|(_, differs)| *differs) {
            Some((option, _)) => Err(options.locate(ConfigError::Fixed { option })),
            None => Ok(config),
        }
    }

    fn read(options: &Options, look_up: LookUp<'_>, known: &[Answer]) -> Result<Self, ConfigError> {
        let specs = specs(options)?;
        let name = match Setting::read(OptionName::NAME, &options.name)? {
            Some(setting) => setting.value()?,
            None => Name::default_of(specs[0].protocol, specs[0].ports),
        };
        let mut config = Config {
            name,
            forwards: Vec::new(),
            not_forwarded: Vec::new(),
            sources: Sources::read(options)?,
            balance: Balance::read(options)?,
            listen: Listen::read(options)?,
            output: boolean(OptionName::OUTPUT, &options.output, false)?,
            masquerade: boolean(OptionName::MASQUERADE, &options.masquerade, true)?,
            fully_random: boolean(OptionName::FULLY_RANDOM, &options.fully_random, true)?,
            clamp_mss: boolean(OptionName::CLAMP_MSS, &options.clamp_mss, false)?,
            hairpin: boolean(OptionName::HAIRPIN, &options.hairpin, false)?,
            fast_path: FastPath::read(options)?,
            strict: boolean(OptionName::STRICT, &options.strict, false)?,
            owner: boolean(OptionName::OWNER, &options.owner, true)?,
            replace: boolean(OptionName::REPLACE, &options.replace, false)?,
            drain: seconds(OptionName::DRAIN, &options.drain)?,
            health: seconds(OptionName::HEALTH, &options.health)?,
            health_reset: boolean(OptionName::HEALTH_RESET, &options.health_reset, false)?,
            watch: watch(options)?,
            answers: Vec::new(),
            written: Vec::new(),
        };
        config.set_forwards(specs, look_up, known)?;
        Ok(config)
    }

    /// Logs the [`warnings`](Self::warnings).
    pub fn log_warnings(&self) {
        self.warnings().for_each(|warning| warn!("{warning}"));
    }

    /// Reports settings that make some connections fail.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.closed_families()
            .chain(self.hairpin_without_masquerade())
            .chain(self.output_by_interface())
            .chain(self.health_without_effect())
            .chain(self.without_destination())
            .chain(self.fast_path_without_effect())
    }

    /// Reports families in which no client can connect.
    fn closed_families(&self) -> impl Iterator<Item = String> {
        let families = Family::ALL.into_iter();
        let forwarded = families.filter(|family| self.has_forwards(*family));
        forwarded.flat_map(|family| {
            let allows_none = *self.sources.of(family) == Allowed::None;
            let closed = [
                allows_none.then_some(OptionName::SRC_RANGES),
                (!self.listen.accepts(family)).then_some(OptionName::LISTEN),
            ];
            let options = closed.into_iter().flatten();
            options.map(move |option| self::closed(option, family))
        })
    }

    /// Reports that a destination's own connections may fail: without masquerading, the server sees
    /// itself or a neighbour as the client. So its reply does not pass this host, which alone could
    /// translate it back.
    fn hairpin_without_masquerade(&self) -> Option<String> {
        (self.hairpin && !self.masquerade).then(|| {
            format!(
                "{} is true, but {} is false: a destination that connects to the forwarded port times out if it is sent to itself or to a host of its own subnet, since the reply bypasses this host; unset one of them",
                OptionName::HAIRPIN,
                OptionName::MASQUERADE
            )
        })
    }

    /// Reports that this host's own connections match no interface that is listed.
    fn output_by_interface(&self) -> Option<String> {
        (self.output && !self.listen.interfaces().is_empty()).then(|| {
            format!(
                "{} is true, but connections made on this host come in on none of the interfaces that {} lists: only those to addresses that it lists are forwarded",
                OptionName::OUTPUT,
                OptionName::LISTEN
            )
        })
    }

    /// Whether packets of this family are forwarded: there is a forward, and it does not listen at
    /// addresses of the other family only.
    pub fn forwards_family(&self, family: Family) -> bool {
        self.has_forwards(family) && self.listen.accepts(family)
    }

    /// The families of which packets are forwarded.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        let families = Family::ALL.into_iter();
        families.filter(|family| self.forwards_family(*family))
    }

    /// The forwards of the families of which packets are forwarded.
    pub fn reachable_forwards(&self) -> impl Iterator<Item = &Forward> + Clone {
        let forwards = self.forwards.iter();
        forwards.filter(|forward| self.listen.accepts(forward.service.family))
    }

    /// Drops the forwards of a family, and gives them.
    pub fn drop_family(&mut self, family: Family) -> Vec<Forward> {
        let of_family = |forward: &Forward| forward.service.family == family;
        let (dropped, kept) = self.forwards.drain(..).partition(of_family);
        self.forwards = kept;
        self.not_forwarded.push(family);
        dropped
    }

    /// Adds forwards of a family that was dropped.
    pub fn add_forwards(&mut self, forwards: impl Iterator<Item = Forward>) {
        self.forwards.extend(forwards);
        self.forwards.sort_by_key(|forward| forward.service);
        let mut not_forwarded = std::mem::take(&mut self.not_forwarded);
        not_forwarded.retain(|family| !self.has_forwards(*family));
        self.not_forwarded = not_forwarded;
    }

    /// Whether there is a forward of this family.
    pub fn has_forwards(&self, family: Family) -> bool {
        let mut forwards = self.forwards.iter();
        forwards.any(|forward| forward.service.family == family)
    }
}

/// Says that an option keeps all clients of a family out.
pub fn closed(option: OptionName, family: Family) -> String {
    format!("{option} has no {family} entry: no client can connect over {family}")
}

/// The forwards of the classic variables, then those of `NODEFWD_FORWARDS` or the arguments: at least
/// one, each destination in it once.
fn specs(options: &Options) -> Result<Vec<ForwardSpec>, ConfigError> {
    let mut specs = classic::forwards(options)?;
    specs.extend(forward::listed(options)?);
    if specs.is_empty() {
        return Err(ConfigError::Missing {
            option: OptionName::DEST_IPS,
            fix: "the addresses to forward to, or a forward such as tcp/80=10.0.0.5:8080",
        });
    }
    for duplicate in specs.iter_mut().flat_map(ForwardSpec::take_duplicates) {
        warn!("destination {duplicate} is listed more than once: it counts once");
    }
    Ok(specs)
}

/// Whether the file is watched; refuses that without a file.
fn watch(options: &Options) -> Result<bool, ConfigError> {
    let watch = boolean(OptionName::WATCH, &options.watch_file, false)?;
    if watch && !options.have_env_file() {
        return Err(ConfigError::Incomplete {
            given: OptionName::WATCH,
            option: OptionName::ENV_FILE,
            fix: "the file to watch",
        });
    }
    Ok(watch)
}

/// Splits the forwards by family, with these answers for names, and refuses two that overlap.
fn forwards(specs: &[ForwardSpec], answers: &[Answer]) -> Result<Vec<Forward>, ConfigError> {
    let by_family = specs.iter().flat_map(|spec| spec.by_family(answers));
    let mut forwards: Vec<Forward> = by_family.collect();
    let mapped_ports = forwards.iter().map(Forward::mapped_ports).sum();
    if mapped_ports > MAX_MAPPED_PORTS {
        return Err(ConfigError::TooManyMappedPorts(mapped_ports));
    }
    check_balanced(forwards.iter().map(Forward::balanced_destinations).sum())?;
    forwards.sort_by_key(|forward| forward.service);
    let overlap = |pair: &&[Forward]| pair[0].service.overlaps(&pair[1].service);
    match forwards.windows(2).find(overlap) {
        None => Ok(forwards),
        Some(pair) => Err(ConfigError::Conflict {
            first: shown(&pair[0].to_string()),
            second: shown(&pair[1].to_string()),
            family: pair[0].service.family,
        }),
    }
}

/// Refuses more destinations of balanced forwards than the limit.
fn check_balanced(destinations: usize) -> Result<(), ConfigError> {
    if destinations > MAX_BALANCED_DESTINATIONS {
        return Err(ConfigError::TooManyBalancedDestinations(destinations));
    }
    Ok(())
}

/// Refuses an address to listen on that no forward has the family of. If only some forwards have none,
/// that is worth a warning.
fn check_reachable(forwards: &[Forward], listen: &Listen) -> Result<(), ConfigError> {
    let mut families = forwards.iter().map(|forward| forward.service.family);
    match forwards.first() {
        Some(first) if !families.any(|family| listen.accepts(family)) => {
            Err(ConfigError::Unreachable {
                family: first.service.family,
                forward: shown(&first.to_string()),
            })
        }
        _ => Ok(()),
    }
}
