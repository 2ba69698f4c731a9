"""The part of README.md about stock kernels, out of kernels.json."""

import json
import pathlib

from aims import AT_LEAST, verdict
from figures import by_rounds, counts_of, key
from tables import cell, table

RESULTS = pathlib.Path(__file__).parent / "kernels.json"
KERNELS = ("5.10", "6.1", "6.12", "sid")
ROUTING, OWN, FAST, LEGACY = "routing", "nodefwd", "nodefwd, fast path", "iptables-legacy"
TWO, ONE = "two interfaces, ", "one interface, "


def read():
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def part(_results):
    return of(read())


def of(found):
    if found:
        yield from method(found)
        for path in next(iter(found.values()))["packets"]:
            yield from packets(found, path)
        yield from tcp(found)
        yield table("what is to be reached", ["aim", *(name(it) for it in found.values())], aims(found))


def name(of_kernel):
    return "Linux " + of_kernel["release"].partition("-")[0].partition("+")[0]


def method(found):
    runs = "; ".join(f"{name(it)} on {it['date']}, {it['rounds']} rounds" for it in found.values())
    yield "## Stock kernels, and the fast path"
    yield (
        "`benches/kernels.sh` boots kernels of Debian in QEMU, where the clock counts the instructions of one processor, "
        "one a nanosecond, while it works. So the figures say how much work a packet is, whatever else this machine does; "
        "what a processor waits for, memory or another processor, is not in them. UDP of 64 bytes comes from the kernel's "
        "packet generator, whose own work counts, in one established flow for each contender, and goes through the last of "
        "the ports that are forwarded. Routing has no conntrack. A node has two interfaces, or one as a pod has, behind a "
        "router that is a part of what is measured; there, routing needs a rule of its own (ip-rule(8)). The tables show how "
        "many packets arrive in a second, against routing in the same round: the median of all rounds, and an interval in "
        "parentheses that holds the true figure with a probability of 95 %. Where it says beside, so many other flowtables "
        "see the packets of the same interfaces first. Where an interval begins with 0, the flowtable has lost packets: since "
        "Linux 6.19 it does so where neighbour entries go ([the fast path](../deploy/README.md#the-fast-path)).")
    yield f"Measured: {runs}."
    yield "![Packets a second on stock kernels, against routing](kernels.svg)"


def against(base, contenders):
    return {contender: by_rounds(figures, contenders[base]) for contender, figures in contenders.items()}


def ratio(interval):
    low, middle, high = interval
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def compared(title, found, digits):
    """A column for each kernel, with the ratios to routing; its own figures are in the first row."""
    base = key(ROUTING, 1)
    kernels = list(found.values())
    rows = {f"routing, {title}": [cell(contenders[base], digits) for contenders in kernels]}
    ratios = [against(base, contenders) for contenders in kernels]
    for contender in dict.fromkeys(it for of_kernel in ratios for it in of_kernel if it != base):
        rows[contender] = [ratio(of_kernel[contender]) if contender in of_kernel else "–" for of_kernel in ratios]
    return rows


def packets(found, path):
    rows = compared("thousand packets/s", {it: found[it]["packets"][path] for it in found}, lambda rate: 0 if rate >= 100 else 1)
    yield table(f"UDP, {path}, against routing", [name(it) for it in found.values()], rows)


def tcp(found):
    yield "TCP through two interfaces, IPv4, without segmentation offload:"
    for section, title, unit in (("tcp", "throughput", "Mbit/s"),
                                 ("connections", "new HTTP connections", "connections/s")):
        rows = compared(unit, {it: found[it][section] for it in found}, lambda _: 0)
        yield table(f"{title}, against routing", [name(it) for it in found.values()], rows)


def aims(found):
    """{what: [aim, found on each kernel]}"""
    rows = {}
    for kernel in found.values():
        measured = {**kernel["packets"], "TCP": kernel["tcp"], "new HTTP connections": kernel["connections"]}
        for title, contenders in measured.items():
            for what, wanted, one, other in [*wishes(title, contenders), *alike(title, contenders)]:
                aim, figures, word = verdict(AT_LEAST, wanted, by_rounds(contenders[one], contenders[other]))
                rows.setdefault(what, [aim]).append(f"{figures}, {word}")
    return rows


def alike(title, contenders):
    """With and without the fast path, many ports are to be like one. As wishes."""
    for contender in (OWN, FAST):
        counts = sorted(set(counts_of(contenders, contender)))  # "nodefwd, " begins both
        if len(counts) > 1:
            one, *_, most = counts
            yield (f"{title}: {key(contender, most)}, against one", 0.97, key(contender, most), key(contender, one))


def wishes(path, contenders):
    """What the fast path is to reach: (what, at least, contender, compared with)."""
    one = key(FAST, 1)
    if path.startswith((TWO, ONE)):
        yield f"{path}: {FAST}, against without", 1.6 if path.startswith(TWO) else 1.15, one, key(OWN, 1)
    if path.startswith(TWO):
        yield f"{path}: {FAST}, against routing without conntrack", 1.3, one, key(ROUTING, 1)
        for count, wanted in ((1, 1.8), (1000, 9)):
            if count in counts_of(contenders, LEGACY):
                yield f"{path}: {FAST}, against {key(LEGACY, count)}", wanted, key(FAST, count), key(LEGACY, count)
