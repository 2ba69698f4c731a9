//! Variables that look like an option's but are none, and values that can be read in two ways.

use crate::fixture::{Nodefwd, TempFile, expect_parts, nodefwd};

fn render(arguments: &[&str]) -> Nodefwd {
    let call = nodefwd(["render"]).args(arguments);
    call.without_net_admin()
}

#[test]
fn a_misspelled_variable_is_a_warning_that_names_the_right_one() {
    for (name, meant) in [
        ("NODEFWD_LISTN", "NODEFWD_LISTEN"),
        ("NODEFWD_MASQ", "NODEFWD_MASQUERADE"),
        ("NODEFWD_SRC_RANGES", "SRC_RANGES"),
        ("SRC_IPS", "SRC_RANGES"),
        ("SRC_RANGE", "SRC_RANGES"),
        ("DEST_IP", "DEST_IPS"),
        ("DEST_PORTS", "DEST_PORT"),
    ] {
        for command in ["render", "check"] {
            let call = nodefwd([command, "tcp/80=10.2.0.11"]).without_net_admin();
            let stderr = call.env(name, "10.1.0.1").finish_here().stderr;
            let warning =
                format!("warning: {name} is no option and is ignored: did you mean {meant}?");
            assert_eq!(stderr.lines().next(), Some(&*warning), "{stderr}");
        }
    }
}

#[test]
fn so_is_one_in_a_file_with_its_line() {
    let file = TempFile::new("NODEFWD_FORWARDS=tcp/80=10.2.0.11\nNODEFWD_LISTN=10.1.0.1\n");
    let call = render(&[]).env("NODEFWD_ENV_FILE", file.path());
    let warning = format!(
        "warning: {}, line 2: NODEFWD_LISTN is no option and is ignored: did you mean NODEFWD_LISTEN?\n",
        file.path().display()
    );
    assert_eq!(call.finish_here().expect_exit(0).stderr, warning);
}

#[test]
fn variables_of_kubernetes_for_a_service_named_nodefwd_are_no_misspelled_ones() {
    let mut call = render(&["tcp/80=10.2.0.11"]);
    for (name, value) in [
        ("NODEFWD_SERVICE_HOST", "10.43.0.7"),
        ("NODEFWD_SERVICE_PORT", "80"),
        ("NODEFWD_SERVICE_PORT_HTTP", "80"),
        ("NODEFWD_PORT", "tcp://10.43.0.7:80"),
        ("NODEFWD_PORT_80_TCP", "tcp://10.43.0.7:80"),
        ("NODEFWD_PORT_80_TCP_PROTO", "tcp"),
        ("NODEFWD_PORT_80_TCP_PORT", "80"),
        ("NODEFWD_PORT_80_TCP_ADDR", "10.43.0.7"),
        ("NODEFWD_WEB_SERVICE_HOST", "10.43.0.8"),
        ("NODEFWD_WEB_PORT_53_UDP_ADDR", "10.43.0.8"),
    ] {
        call = call.env(name, value);
    }
    assert_eq!(call.finish_here().expect_exit(0).stderr, "");
}

#[test]
fn an_ipv6_address_with_a_port_but_without_brackets_is_refused_with_how_to_write_it() {
    for (destination, readings) in [
        ("fd00::5:8080", ["[fd00::5]:8080", "[fd00::5:8080]"]),
        ("10.2.0.11,fd00::1:2", ["[fd00::1]:2", "[fd00::1:2]"]),
        ("fd00::5:30080", ["[fd00::5]:30080", "no brackets"]),
    ] {
        let forward = format!("tcp/80={destination}");
        for call in [
            render(&[&forward]),
            render(&[]).env("NODEFWD_FORWARDS", &forward),
        ] {
            let stderr = call.finish_here().expect_exit(2).stderr;
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            expect_parts(&stderr, readings);
        }
    }
    for destination in ["[fd00::5]:8080", "[fd00::5:8080]", "fd00::5"] {
        let call = render(&[&format!("tcp/80={destination}")]);
        call.finish_here().expect_exit(0);
    }
}

#[test]
fn link_local_addresses_are_refused() {
    for arguments in [
        &["tcp/80=[fe80::5]"][..],
        &["tcp/80=[fe80::5]:8080"],
        &["tcp/80=fe80::5"],
        &["tcp/80=[fe80::5%eth0]:8080"],
        &["tcp/80=fd00::5", "--listen=fe80::5"],
        &["tcp/80=fd00::5", "--listen=fd00::1,fe80::5%eth0"],
    ] {
        let stderr = render(arguments).finish_here().expect_exit(2).stderr;
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        expect_parts(&stderr, ["fe80::5", "use a global or unique local address"]);
    }
    render(&["tcp/80=169.254.169.254"])
        .finish_here()
        .expect_exit(0);
}

#[test]
fn an_empty_list_of_source_ranges_allows_everyone() {
    let without = render(&["tcp/80=10.2.0.11"]);
    let empty = without.clone().env("SRC_RANGES", "");
    let [without, empty] = [without, empty].map(|call| call.finish_here().expect_success());
    assert_eq!(without, empty);
}

/// Whatever is forwarded: all that decides on a destination is in the rules.
#[test]
fn the_rules_of_balancing_by_source_do_not_depend_on_the_order_of_destinations() {
    for (forward, other) in [
        (
            "tcp/80=10.2.0.2:1,10.2.0.11:1,10.2.0.2:2",
            "tcp/80=10.2.0.2:2,10.2.0.11:1,10.2.0.2:1",
        ),
        (
            "udp/90-95=10.2.0.2,10.2.0.11",
            "udp/90-95=10.2.0.11,10.2.0.2",
        ),
        (
            "udp/90-91=10.2.0.2:80-81,10.2.0.11:70-71",
            "udp/90-91=10.2.0.11:70-71,10.2.0.2:80-81",
        ),
        (
            "sctp/9=fd00::2,10.2.0.2,fd00::1",
            "sctp/9=fd00::1,fd00::2,10.2.0.2",
        ),
    ] {
        let rules = |forward, balance| {
            let call = render(&[forward, "--balance", balance]);
            call.finish_here().expect_success()
        };
        assert_eq!(rules(forward, "source"), rules(other, "source"));
        assert_ne!(rules(forward, "random"), rules(other, "random"));
    }
}
