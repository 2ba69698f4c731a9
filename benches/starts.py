"""How long starts and stops take: many forwards, one forward, many sources, conntrack entries, replacement."""

import contenders as c
import entries
import lives
from hosts import fresh
from rounds import QUICK, ROUNDS, interleaved

INSTALLED = (1, 10, 100) if QUICK else (1, 10, 100, 1000, 10000, 60000)
REPLACED = 100 if QUICK else 10000
BACKEND = entries.BACKEND


def installations():
    """{metric: {number of forwards: {contender: milliseconds}}}"""
    found = {}
    for count in INSTALLED:
        for metric, by_contender in installation(count).items():
            found.setdefault(metric, {})[str(count)] = by_contender
    return found


def installation(count):
    """Milliseconds of time and CPU until the rules of so many forwards are active, and until they are gone."""
    wanted = c.ports(count)
    arguments = c.forwards(wanted, BACKEND)
    klipper, original = list(c.klipper(wanted, BACKEND)), list(c.original(wanted, BACKEND))
    jobs = {
        # What it costs to start any program at all.
        "true, which does nothing": lives.of_commands(["true"], ""),
        "nodefwd": lives.of_nodefwd(arguments, {}),
        "nft -f": lives.of_nft(arguments, {}),
    }
    if count <= 10000:
        jobs["iptables-nft-restore"] = lives.of_restore("nft", klipper)
    if count <= 1000:
        jobs["iptables-nft, script"] = lives.of_commands(["sh"], c.script("nft", klipper))
    jobs["iptables-legacy-restore"] = lives.of_restore("legacy", klipper)
    jobs["iptables-legacy-restore, 2 rules"] = lives.of_restore("legacy", original)
    if count <= 1000:
        jobs["iptables-legacy, script"] = lives.of_commands(["sh"], c.script("legacy", klipper))
    found = interleaved(jobs, lambda name: rounds(count, name))
    found["ready"]["nodefwd, by its own clock"] = found.pop("own")["nodefwd"]
    return found


def rounds(count, name):
    if QUICK or name.endswith("script") and count >= 1000:
        return 1
    if count > 10000:
        return 3
    if count <= 10:
        return 8 * ROUNDS  # they differ by a tenth of a millisecond
    return 2 * ROUNDS if count != 1000 else ROUNDS


def one_forward():
    """Milliseconds of CPU of a start and a stop of one forward, where there is no other connection."""
    jobs = {"true, which does nothing": lives.of_commands(["true"], "")}
    for protocol in ("tcp", "udp"):
        arguments = [f"{protocol}/{c.FIRST_PORT}={BACKEND}:{c.BACKEND_PORT}"]
        jobs[f"nodefwd, {protocol}"] = lives.of_nodefwd(arguments, {})
        jobs[f"nft, {protocol}"] = lives.of_nft(arguments, {})
    return interleaved(jobs, lambda _: 3 * ROUNDS)["cpu"]


def sources(count):
    """Addresses that do not touch each other, and short ones: a variable holds 128 KiB."""
    return [f"{1 + i // 5000}.{i // 500 % 10}.{i // 50 % 10}.{i % 50 * 2}" for i in range(count)]


def source_ranges():
    """Milliseconds until 10,000 ranges of sources are active, against one, and nft with the same set."""
    ranges = {"SRC_RANGES": " ".join(sources(10000))}
    arguments = c.forwards(c.ports(1), BACKEND)
    return interleaved({
        "nodefwd, 1 range": lives.until_ready(arguments, {"SRC_RANGES": "10.90.0.0/16"}),
        "nodefwd, 10,000 ranges": lives.until_ready(arguments, ranges),
        "nft -f, 10,000 ranges": lives.of_nft(arguments, ranges),
    }, lambda _: 2 * ROUNDS)["ready"]


def foreign_entries():
    """Milliseconds until nodefwd is ready among conntrack entries that it has nothing to do with."""
    def among(count, protocol, environment):
        def measure(host, _):
            entries.foreign(host, count)
            found, process = lives.ready(host, [f"{protocol}/60000={BACKEND}"], environment)
            lives.cpu_when_idle(process)
            if entries.count(host) < count:
                raise RuntimeError("foreign conntrack entries are gone")
            return found

        return lambda: fresh(measure)

    ranges = {"SRC_RANGES": "10.90.0.0/16"}
    cases = {"udp": ("udp", {}), "tcp": ("tcp", {}), "tcp with source ranges": ("tcp", ranges)}
    return interleaved({f"{name}, {count:,} entries": among(count, *case)
                        for name, case in cases.items() for count in (0, 100_000)})["ready"]


def replacements():
    """Milliseconds until a process is ready that replaces one of whose forwards one goes to another port,
    against a start of the same forwards in a new namespace."""
    arguments = ["--name=web", *c.forwards(c.ports(REPLACED), BACKEND)]
    changed = [*arguments[:-1], f"tcp/{c.ports(REPLACED)[-1][1]}={BACKEND}:{c.BACKEND_PORT + 1}"]

    def replacement(host, _):
        _, process = lives.ready(host, arguments, {})
        lives.cpu_when_idle(process)
        found, _ = lives.ready(host, ["--replace", *changed], {})
        lives.wait(process)
        return found

    return {"forwards": REPLACED, **interleaved({
        "replacement": lambda: fresh(replacement),
        "start": lives.until_ready(changed, {}),
    }, lambda _: 2 * ROUNDS)["ready"]}
