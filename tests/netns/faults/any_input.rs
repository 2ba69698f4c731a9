//! Any input: all options at once, each valid, missing or spoiled.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use nodefwd::config::{Config, ConfigError, Family, FastPath, Forward, Service};
use nodefwd::ruleset::{Dnat, Field, Ruleset, Set, Statement, Value};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestCaseError, TestRunner};
use proptest::{prop_assert, prop_assert_eq};

use crate::fixture::{Namespace, Nodefwd, nodefwd};

use super::spoiled_input::{Input, VARIABLES, input};

/// How many inputs are tried.
pub const INPUTS: u32 = 100_000;

/// How many inputs that are accepted, and how many that are rejected, the program itself is run with.
const SAMPLES: usize = 200;

/// How many threads try them.
const THREADS: usize = 2;

type Checked = Result<(), TestCaseError>;

#[test]
fn any_input_is_rejected_with_the_option_named_or_makes_a_sound_ruleset() {
    let accepted = AtomicU32::new(0);
    let check = |input: Input| match Config::new(&input.options()) {
        Ok(config) => {
            accepted.fetch_add(1, Ordering::Relaxed);
            expect_sound(&config)?;
            let again = Config::new(&input.options());
            let text = |config: &Config| Ruleset::new(config).to_string();
            prop_assert_eq!(again.as_ref().map(text), Ok(text(&config)));
            Ok(())
        }
        Err(error) => expect_readable(&input, &error),
    };
    let run = || {
        let result = runner().run(&input(), check);
        result.map_err(|failure| failure.to_string())
    };
    thread::scope(|scope| {
        let threads = [(); THREADS].map(|()| scope.spawn(run));
        for thread in threads {
            thread
                .join()
                .expect("no panic")
                .unwrap_or_else(|failure| panic!("{failure}"));
        }
    });
    let accepted = accepted.into_inner();
    let fraction = INPUTS / 10..INPUTS * 9 / 10;
    assert!(fraction.contains(&accepted), "{accepted} were accepted");
}

fn runner() -> TestRunner {
    TestRunner::new(Runs {
        cases: INPUTS / THREADS as u32,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::XorShift,
        ..Runs::default()
    })
}

/// The program accepts the same inputs, and nft and the kernel accept their rulesets.
#[test]
fn the_kernel_accepts_the_rules_of_any_accepted_input() {
    let node = Namespace::forwarding("node");
    let mut runner = runner();
    let (mut accepted, mut rejected) = (0, 0);
    while accepted < SAMPLES || rejected < SAMPLES {
        let input = input().new_tree(&mut runner).expect("an input").current();
        match Config::new(&input.options()) {
            // This kernel may have no flowtables, and has no such interfaces.
            Ok(config) if matches!(config.fast_path, FastPath::Interfaces(_)) => {}
            Ok(config) if accepted < SAMPLES => {
                accepted += 1;
                expect_installable(&node, &input, &Ruleset::new(&config).to_string());
            }
            Err(error) if rejected < SAMPLES => {
                rejected += 1;
                // There is no name server in the namespace.
                let status = if error.is_unresolved() { 1 } else { 2 };
                let outcome = call(&input).finish(&node).expect_exit(status);
                let lines = outcome.stderr.lines();
                assert_eq!(lines.filter(|line| line.starts_with("error: ")).count(), 1);
            }
            _ => {}
        }
    }
    assert_eq!(node.ruleset(), "");
}

fn call(input: &Input) -> Nodefwd {
    let variables = VARIABLES.iter().zip(&input.texts);
    let given = variables.filter_map(|(name, text)| Some((name, text.as_ref()?)));
    given.fold(nodefwd([""; 0]), |call, (name, text)| call.env(name, text))
}

fn expect_installable(node: &Namespace, input: &Input, text: &str) {
    let printed = call(input).args(&["render"]).finish(node).expect_success();
    assert_eq!(printed, text, "{input:?}");
    node.feed(&printed, "nft", &["--check", "--file", "-"]);
    let forwarder = call(input).start(node);
    forwarder.stop(Signal::SIGTERM).expect_exit(0);
    assert_eq!(node.ruleset(), "", "{input:?}");
}

/// One line without control characters, short enough to be read, that names an option that is invalid.
fn expect_readable(input: &Input, error: &ConfigError) -> Checked {
    let message = error.to_string();
    prop_assert!(!message.contains(char::is_control), "{message:?}");
    prop_assert!(message.len() < 1000, "{} bytes", message.len());
    let words: Vec<&str> = message
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    let named: Vec<usize> = (0..VARIABLES.len())
        .filter(|index| words.contains(&VARIABLES[*index]))
        .collect();
    prop_assert!(!named.is_empty(), "no option is named: {message}");
    let blamed = match error {
        ConfigError::Empty { .. } | ConfigError::NotUtf8 { .. } | ConfigError::Invalid { .. } => {
            named[0]
        }
        _ => return Ok(()),
    };
    // Whether DEST_PORT is valid depends on SRC_PORT.
    let [source, destination] = ["SRC_PORT", "DEST_PORT"]
        .map(|name| VARIABLES.iter().position(|variable| *variable == name));
    let is_spoiled = input.spoiled.contains(&blamed)
        || Some(blamed) == destination && input.spoiled.iter().any(|index| Some(*index) == source);
    prop_assert!(is_spoiled, "a valid option is named: {message}");
    Ok(())
}

fn expect_sound(config: &Config) -> Checked {
    expect_disjoint(&config.forwards)?;
    let forwarded = Family::ALL
        .iter()
        .any(|family| config.forwards_family(*family));
    prop_assert!(forwarded, "nothing is forwarded");
    let ruleset = Ruleset::new(config);
    expect_sound_rules(&ruleset)?;
    if let FastPath::Interfaces(names) = &config.fast_path {
        let mut ruleset = ruleset.clone();
        ruleset.add_fast_path(config, names.clone());
        expect_sound_rules(&ruleset)?;
    }
    // Every other one that is tried fails, and all do.
    for step in [2, 1] {
        let down = config.tried().into_iter().step_by(step).collect();
        let without = Ruleset::without(config, &down);
        expect_sound_rules(&without)?;
        prop_assert_eq!(
            &without.sets,
            &ruleset.sets,
            "sets cannot change with destinations"
        );
    }
    Ok(())
}

fn expect_sound_rules(ruleset: &Ruleset) -> Checked {
    let chains: HashSet<&str> = ruleset.chains.iter().map(|chain| &chain.name[..]).collect();
    prop_assert_eq!(chains.len(), ruleset.chains.len(), "two chains of a name");
    let sets: HashSet<&str> = ruleset.sets.iter().map(|set| &set.name[..]).collect();
    prop_assert_eq!(sets.len(), ruleset.sets.len(), "two sets of a name");
    for set in &ruleset.sets {
        expect_distinct(set)?;
        for element in &set.elements {
            if let Some(Value::Goto(chain)) = &element.value {
                prop_assert!(chains.contains(&chain[..]), "no chain {chain}");
            }
        }
    }
    let rules = ruleset.chains.iter().flat_map(|chain| &chain.rules);
    for statement in rules.flatten() {
        if let Some(name) = set_of(statement) {
            prop_assert!(sets.contains(name), "no set {name}");
        }
        if let Some(name) = chain_of(statement) {
            prop_assert!(chains.contains(name), "no chain {name}");
        }
    }
    Ok(())
}

/// Each has a backend, and no packet matches two.
fn expect_disjoint(forwards: &[Forward]) -> Checked {
    prop_assert!(!forwards.is_empty());
    let mut services = BTreeSet::new();
    for forward in forwards {
        let Service {
            family,
            protocol,
            ports,
        } = forward.service;
        prop_assert!(!forward.destinations.is_empty(), "{forward} has no backend");
        for to in &forward.destinations {
            prop_assert_eq!(Family::of(to.address), family);
            prop_assert!(to.ports.is_single() || to.ports.count() == ports.count());
        }
        prop_assert!(
            services.insert((family, protocol, ports)),
            "{forward} twice"
        );
    }
    for (one, other) in services.iter().zip(services.iter().skip(1)) {
        let same = (one.0, one.1) == (other.0, other.1);
        prop_assert!(!same || one.2.last() < other.2.first(), "{one:?} {other:?}");
    }
    Ok(())
}

/// The set has an element, and no two of its elements overlap.
fn expect_distinct(set: &Set) -> Checked {
    prop_assert!(!set.elements.is_empty(), "{} is empty", set.name);
    let mut keys: Vec<Vec<[u128; 2]>> = set
        .elements
        .iter()
        .map(|element| element.key.iter().map(ends).collect())
        .collect();
    keys.sort();
    let widths: HashSet<usize> = keys.iter().map(Vec::len).collect();
    prop_assert_eq!(widths.into_iter().collect::<Vec<_>>(), [set.key.len()]);
    for pair in keys.windows(2) {
        // Only the last field may be a range.
        let [one, other] = [&pair[0], &pair[1]].map(|key| key.split_last());
        let (Some((one, before)), Some((other, before_other))) = (one, other) else {
            continue;
        };
        let apart = before != before_other || one[1] < other[0];
        prop_assert!(apart, "{}: {:?}", set.name, pair);
    }
    Ok(())
}

/// The first and the last value of a field.
fn ends(field: &Field) -> [u128; 2] {
    let number = |address| match address {
        std::net::IpAddr::V4(address) => u32::from(address).into(),
        std::net::IpAddr::V6(address) => u128::from(address),
    };
    match *field {
        Field::Network(network) => [network.network(), network.broadcast()].map(number),
        Field::Address(address) => [number(address); 2],
        Field::Protocol(protocol) => [protocol.number().into(); 2],
        Field::Ports(ports) => [ports.first().into(), ports.last().into()],
        Field::Interface(name) => [u128::from_be_bytes(*name.bytes()); 2],
    }
}

/// The set or map in which a statement looks up.
fn set_of(statement: &Statement) -> Option<&str> {
    match statement {
        Statement::DestinationIn(_, set)
        | Statement::SourceIn(_, set)
        | Statement::SourceNotIn(_, set)
        | Statement::SourceAndServiceIn(_, set)
        | Statement::ServiceIn(set)
        | Statement::ServiceVmap(set)
        | Statement::BackendIn(_, set)
        | Statement::FromBackendIn(_, set)
        | Statement::VrfInterfaceIn(set)
        | Statement::InterfaceIn(set) => Some(set),
        Statement::Dnat(Dnat::Map(_, map)) => Some(map),
        // Each by name, so that a statement that is added later must be added here too.
        Statement::Family(_)
        | Statement::Protocol(_)
        | Statement::DestinationType(_)
        | Statement::FromBridge
        | Statement::FromBridgeToBridge
        | Statement::WouldTurnBack
        | Statement::ToOthers
        | Statement::SourceIsElsewhere
        | Statement::LocalToInterface
        | Statement::LoopbackDestination(_)
        | Statement::Choose(_)
        | Statement::LinkLocalDestination
        | Statement::Translated
        | Statement::Invalid
        | Statement::TcpSynOrRst
        | Statement::Counter
        | Statement::Drop
        | Statement::Return
        | Statement::Jump(_)
        | Statement::Goto(_)
        | Statement::Dnat(Dnat::SamePort(_) | Dnat::Port(..))
        | Statement::Original
        | Statement::Established
        | Statement::FlowAdd(_)
        | Statement::TcpSyn
        | Statement::ClampMss
        | Statement::Masquerade(_) => None,
    }
}

/// The chain that a statement leads to.
fn chain_of(statement: &Statement) -> Option<&str> {
    match statement {
        Statement::Jump(chain) | Statement::Goto(chain) => Some(chain),
        _ => None,
    }
}
