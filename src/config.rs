//! What the user asked for. Parse, don't validate: in a [`Config`] no value can be wrong.

mod address;
mod choice;
mod classic;
mod error;
mod forward;
mod option;
mod port;
mod protocol;
mod sources;

pub use address::AddressError;
pub use choice::{
    Balance, BalanceError, Listen, ListenError, Name, NameError, Seconds, SecondsError, Switch,
    SwitchError,
};
pub use error::{ConfigError, Problem};
pub use forward::{Destination, Forward, ForwardError, LengthError};
pub use option::OptionName;
pub use port::{PortError, PortRange};
pub use protocol::{Family, Protocol, ProtocolError};
pub use sources::{Allowed, SourceError, Sources};

use crate::cli::Options;
use crate::netfilter::Ownership;
use forward::Request;
use log::warn;
use option::{Setting, shown};
use std::{ffi::OsString, str::FromStr, time::Duration};

/// Everything that decides what the kernel is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The instance's name.
    pub name: Name,
    /// At least one; no two of them claim the same packet. In order of family, protocol and port.
    pub forwards: Vec<Forward>,
    /// Who may connect.
    pub sources: Sources,
    /// How a destination is chosen among several.
    pub balance: Balance,
    /// Which packets are taken.
    pub listen: Listen,
    /// Whether connections made on this host itself are taken too.
    pub output: bool,
    /// Whether the destination sees this host's address instead of the client's.
    pub masquerade: bool,
    /// Whether a destination's own connection to the forwarded port is forwarded.
    pub hairpin: bool,
    /// Whether a family that cannot be forwarded is an error.
    pub strict: bool,
    /// Who keeps others from changing the table, if the kernel can.
    pub ownership: Ownership,
    /// Whether a live instance of this name is replaced.
    pub replace: bool,
    /// How long running connections may go on after the signal to end.
    pub drain: Duration,
}

/// How many ports of ranges may go to other ports, counted for each destination. Each is an element
/// of a map: this many take a second and 40 MB.
const MAX_SHIFTED: usize = 1 << 18;

impl Config {
    /// Reads all options. Logs a warning for what is accepted but surely not meant: an address
    /// or a protocol listed twice, host bits in a range. Refuses the first option that is wrong.
    pub fn new(options: &Options) -> Result<Self, ConfigError> {
        let requests = requests(options)?;
        let name = match setting(OptionName::NAME, &options.name)? {
            Some(setting) => setting.value()?,
            None => Name::of_service(requests[0].protocol, requests[0].ports),
        };
        let forwards = forwards(requests)?;
        let listen = listen(setting(OptionName::LISTEN, &options.listen)?)?;
        expect_reachable(&forwards, &listen)?;
        let sources = source_ranges(setting(OptionName::SRC_RANGES, &options.src_ranges)?)?;
        Ok(Config {
            name,
            forwards,
            sources,
            balance: value(OptionName::BALANCE, &options.balance, Balance::Random)?,
            listen,
            output: switch(OptionName::OUTPUT, &options.output, false)?,
            masquerade: switch(OptionName::MASQUERADE, &options.masquerade, true)?,
            hairpin: switch(OptionName::HAIRPIN, &options.hairpin, false)?,
            strict: switch(OptionName::STRICT, &options.strict, false)?,
            ownership: match switch(OptionName::OWNER, &options.owner, true)? {
                true => Ownership::Kernel,
                false => Ownership::Nobody,
            },
            replace: switch(OptionName::REPLACE, &options.replace, false)?,
            drain: drain(&options.drain)?,
        })
    }

    /// The name of the instance that the options configure, which takes but a few of them; nothing
    /// if those are not set.
    pub fn name(options: &Options) -> Result<Option<Name>, ConfigError> {
        if let Some(setting) = setting(OptionName::NAME, &options.name)? {
            return setting.value().map(Some);
        }
        let service = match classic::first_service(options)? {
            Some(service) => Some(service),
            None => listed_requests(options)?
                .first()
                .map(|first| (first.protocol, first.ports)),
        };
        Ok(service.map(|(protocol, ports)| Name::of_service(protocol, ports)))
    }

    /// Logs the [`warnings`](Self::warnings).
    pub fn log_warnings(&self) {
        self.warnings().for_each(|warning| warn!("{warning}"));
    }

    /// Says what some connections will fail of.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.closed_families().chain(self.unanswered_hairpin())
    }

    /// Says which families are forwarded, but nobody may use them.
    fn closed_families(&self) -> impl Iterator<Item = String> {
        let forwarded = |family: &Family| self.forwards_family(*family);
        Family::ALL
            .into_iter()
            .filter(forwarded)
            .flat_map(|family| {
                let denied = *self.sources.of(family) == Allowed::Nobody;
                let closed = [
                    denied.then_some(OptionName::SRC_RANGES),
                    (!self.listen.takes(family)).then_some(OptionName::LISTEN),
                ];
                closed.into_iter().flatten().map(move |option| {
                    format!("{option} has no {family} entry: nobody can connect over {family}")
                })
            })
    }

    /// Says that a destination's own connections may fail: without masquerading what answers them sees
    /// itself or a neighbour as the client, and so the answer never comes to this host, which alone could
    /// give it back the address that was asked.
    fn unanswered_hairpin(&self) -> Option<String> {
        (self.hairpin && !self.masquerade).then(|| {
            format!(
                "{} is true, but {} is false: a destination that is sent to itself, or to another in its own subnet, gets no answer from the address that it asked, and times out",
                OptionName::HAIRPIN,
                OptionName::MASQUERADE
            )
        })
    }

    /// Whether packets of this family are taken: something is forwarded, and not only at addresses
    /// of the other family.
    pub fn takes(&self, family: Family) -> bool {
        self.forwards_family(family) && self.listen.takes(family)
    }

    /// Whether anything of this family is forwarded.
    pub fn forwards_family(&self, family: Family) -> bool {
        self.forwards.iter().any(|forward| forward.family == family)
    }
}

fn setting(
    option: OptionName,
    value: &Option<OsString>,
) -> Result<Option<Setting<'_>>, ConfigError> {
    Setting::read(option, value.as_ref())
}

fn value<T: FromStr>(
    option: OptionName,
    value: &Option<OsString>,
    default: T,
) -> Result<T, ConfigError>
where
    Problem: From<T::Err>,
{
    match setting(option, value)? {
        Some(setting) => setting.value(),
        None => Ok(default),
    }
}

fn switch(option: OptionName, text: &Option<OsString>, default: bool) -> Result<bool, ConfigError> {
    value(option, text, Switch(default)).map(|Switch(on)| on)
}

fn drain(text: &Option<OsString>) -> Result<Duration, ConfigError> {
    let Seconds(seconds) = value(OptionName::DRAIN, text, Seconds(0))?;
    Ok(Duration::from_secs(seconds.into()))
}

/// Everything that the classic variables and the forwards ask for, in this order.
fn requests(options: &Options) -> Result<Vec<Request>, ConfigError> {
    let mut requests = classic::requests(options)?;
    requests.extend(listed_requests(options)?);
    if requests.is_empty() {
        return Err(ConfigError::Missing {
            option: OptionName::DEST_IPS,
            remedy: "the addresses to forward to, or a forward such as tcp/80=10.0.0.5:8080",
        });
    }
    Ok(requests)
}

/// What the forwards ask for.
fn listed_requests(options: &Options) -> Result<Vec<Request>, ConfigError> {
    let mut requests = Vec::new();
    for text in &options.forwards {
        if let Some(setting) = Setting::read(OptionName::FORWARDS, Some(text))? {
            for word in setting.text.split_whitespace() {
                requests.push(
                    word.parse()
                        .map_err(|error: ForwardError| setting.invalid(word, error))?,
                );
            }
        }
    }
    Ok(requests)
}

/// Splits the requests by family and makes sure that no packet has two destinations.
fn forwards(requests: Vec<Request>) -> Result<Vec<Forward>, ConfigError> {
    let mut forwards = Vec::new();
    for request in requests {
        let (of_request, duplicates) = request.by_family();
        for duplicate in duplicates {
            warn!("destination {duplicate} is listed more than once: it counts once");
        }
        forwards.extend(of_request);
    }
    let shifted = forwards.iter().map(Forward::shifted_ports).sum();
    if shifted > MAX_SHIFTED {
        return Err(ConfigError::TooManyShifted(shifted));
    }
    forwards.sort_by_key(|forward| (forward.family, forward.protocol, forward.ports));
    match forwards.windows(2).find(|pair| pair[0].overlaps(&pair[1])) {
        None => Ok(forwards),
        Some(pair) => Err(ConfigError::Conflict {
            first: shown(&pair[0].to_string()),
            second: shown(&pair[1].to_string()),
            family: pair[0].family,
        }),
    }
}

fn listen(setting: Option<Setting<'_>>) -> Result<Listen, ConfigError> {
    let Some(setting) = setting else {
        return Ok(Listen::Local);
    };
    match setting.text.trim() {
        "local" => Ok(Listen::Local),
        "any" => Ok(Listen::Any),
        _ => {
            let mut addresses = setting.list(choice::listen_address)?;
            addresses.sort();
            addresses.dedup();
            Ok(Listen::Addresses(addresses))
        }
    }
}

/// Makes sure that packets can come to a forward. Where some are without a listening address, that is
/// only worth a warning.
fn expect_reachable(forwards: &[Forward], listen: &Listen) -> Result<(), ConfigError> {
    match forwards.first() {
        Some(first) if !forwards.iter().any(|forward| listen.takes(forward.family)) => {
            Err(ConfigError::Unreachable {
                family: first.family,
                forward: shown(&first.to_string()),
            })
        }
        _ => Ok(()),
    }
}

/// An empty SRC_RANGES is as good as none: that is what Kubernetes' controller sets for a Service
/// without loadBalancerSourceRanges.
fn source_ranges(setting: Option<Setting<'_>>) -> Result<Sources, ConfigError> {
    let ranges = match setting {
        Some(setting) if setting.words().next().is_some() => setting.list(sources::range)?,
        _ => Vec::new(),
    };
    for range in ranges.iter().filter(|range| range.trunc() != **range) {
        let meant = range.trunc();
        warn!(
            "{}: {range} has host bits set: taken as {meant}",
            OptionName::SRC_RANGES
        );
    }
    Ok(Sources::new(&ranges))
}
