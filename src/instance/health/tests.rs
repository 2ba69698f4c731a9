//! When destinations are tried, and what comes of it.

use super::*;
use crate::config::Options;

/// Two destinations that are tried.
fn health() -> Health {
    of("10.2.0.11,10.2.0.12", None)
}

#[test]
fn three_failures_in_a_row_leave_it_out_and_two_successes_take_it_in() {
    let mut health = health();
    for (outcomes, is_up) in [
        ("--+--", true),
        ("-+---", false),
        ("+-+", false),
        ("+", true),
    ] {
        for outcome in outcomes.chars() {
            let failed = Err(Errno::ECONNREFUSED);
            health.judge(0, if outcome == '+' { Ok(()) } else { failed });
        }
        assert_eq!(health.targets[0].is_up, is_up, "after {outcomes}");
    }
    assert!(health.targets[1].is_up);
}

#[test]
fn attempts_are_spread_over_the_interval_and_follow_sooner_after_a_failure() {
    let mut health = health();
    let start = health.round;
    assert_eq!(health.due(), start);
    health.next = 1;
    assert_eq!(health.due(), start + Duration::from_secs(4));
    health.judge(1, Err(Errno::ECONNREFUSED));
    assert_eq!(health.deadline(), start + Duration::from_secs(2));
    health.judge(1, Ok(()));
    health.judge(1, Err(Errno::ECONNREFUSED));
    health.judge(1, Err(Errno::ECONNREFUSED));
    health.judge(1, Err(Errno::ECONNREFUSED));
    // It is out: now it has time.
    assert_eq!(health.targets[1].again, None);
}

/// Those of a step begin together, none of them much before its turn.
#[test]
fn many_attempts_begin_in_few_steps() {
    let addresses: Vec<String> = (1..=200).map(|host| format!("10.2.0.{host}")).collect();
    let mut health = of(&addresses.join(","), None);
    let start = health.round;
    for next in 0..200 {
        health.next = next;
        let due = (health.due() - start).as_millis();
        assert_eq!(due, next as u128 / 20 * 800);
    }
}

/// Of these addresses.
fn of(addresses: &str, before: Option<&Health>) -> Health {
    let config = Config::new(&Options {
        forwards: vec![format!("tcp/80={addresses}").into()],
        health: Some("8".into()),
        ..Options::default()
    });
    let health = Health::new(&config.unwrap(), before).unwrap();
    health.expect("something to try")
}

#[test]
fn a_round_goes_on_where_it_was_when_destinations_come_and_go() {
    let mut health = of("10.2.0.1,10.2.0.3,10.2.0.5,10.2.0.7", None);
    health.next = 2;
    let next = |health: &Health| health.targets[health.next].to.address.to_string();
    let round = health.round;
    for (addresses, expected) in [
        ("10.2.0.1,10.2.0.5,10.2.0.7", "10.2.0.5"),
        ("10.2.0.1,10.2.0.2,10.2.0.3,10.2.0.7", "10.2.0.7"),
        ("10.2.0.4,10.2.0.5,10.2.0.6,10.2.0.7", "10.2.0.5"),
    ] {
        let health = of(addresses, Some(&health));
        assert_eq!((next(&health).as_str(), health.round), (expected, round));
    }
    let health = of("10.2.0.1,10.2.0.3", Some(&health));
    let expected = ("10.2.0.1", round + Duration::from_secs(8));
    assert_eq!((next(&health).as_str(), health.round), expected);
}

#[test]
fn those_that_wait_keep_their_places_when_destinations_come_and_go() {
    let mut before = of("10.2.0.1,10.2.0.3,10.2.0.5", None);
    for index in [2, 0, 1] {
        before.enqueue(index);
    }
    // Those that wait already do not wait twice.
    before.enqueue(0);
    let mut health = of("10.2.0.1,10.2.0.2,10.2.0.5", Some(&before));
    health.take_attempts(before);
    assert_eq!(health.waiting, [2, 0]);
}
