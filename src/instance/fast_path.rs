//! The interfaces of an instance's fast path, which come and go while it runs.

use crate::config::{Config, FastPath, InterfaceName, OptionName, first_few};
use crate::fast_path::{Device, plan, still_there};
use crate::logging::with_causes;
use crate::nftables::{Nftables, NftablesError};
use crate::rtnetlink::RtnetlinkError;
use log::{Level, info, log};

/// What an instance knows of its fast path.
#[derive(Default)]
pub struct Interfaces {
    /// Those that the kernel takes packets of.
    applied: Vec<Device>,
    /// What the log had last of why it is without, or lacks one.
    said: Option<String>,
    /// Whether the kernel has no flowtables, so that `auto` goes on without.
    given_up: bool,
    /// Whether the rules are installed without a fast path if the kernel refuses that, instead of failing.
    optional: bool,
}

impl Interfaces {
    /// Looks which can be taken now, and says what is in the way if that has changed.
    pub fn look(&mut self, config: &Config, nftables: &Nftables) -> Vec<Device> {
        let is_auto = config.fast_path == FastPath::Auto;
        self.optional |= is_auto;
        if self.given_up && is_auto {
            return Vec::new();
        }
        let plan = plan(config, Some(nftables));
        let missing = || {
            let names = first_few(plan.missing.iter());
            let option = OptionName::FAST_PATH;
            format!("{option}: there is no interface {names}: the fast path takes it when it comes")
        };
        let (level, text) = match &plan.without {
            Some(reason) => (Level::Info, Some(format!("no fast path: {reason}"))),
            None => (Level::Warn, (!plan.missing.is_empty()).then(missing)),
        };
        if let Some(text) = text.as_ref().filter(|_| text != self.said) {
            log!(level, "{text}");
        }
        self.said = text;
        plan.devices
    }

    /// The rules in the kernel take these.
    pub fn apply(&mut self, devices: Vec<Device>) {
        // Later on, what it lacks must not be the end of the instance.
        self.optional = true;
        if devices != self.applied && !devices.is_empty() {
            let names = devices.iter().map(|device| device.name);
            let names: Vec<InterfaceName> = names.collect();
            info!("fast path: on {}", first_few(names.iter()));
        }
        self.applied = devices;
    }

    /// Those that the kernel takes packets of, as far as they are there still, and those that it does not yet.
    pub fn changes(
        &mut self,
        config: &Config,
        nftables: &Nftables,
    ) -> Result<(Vec<Device>, Vec<Device>), RtnetlinkError> {
        let kept = still_there(&self.applied)?;
        let mut new = self.look(config, nftables);
        new.retain(|device| !kept.contains(device));
        Ok((kept, new))
    }

    /// Whether the rules can do without what the kernel refuses; then they must.
    pub fn give_up(&mut self, error: &NftablesError) -> bool {
        if self.optional {
            self.given_up = true;
            info!("no fast path: {}", with_causes(error));
        }
        self.optional
    }
}
