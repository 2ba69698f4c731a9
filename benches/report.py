"""Writes README.md out of results.json: Markdown tables, and which aims are reached. Prints it."""

import json
import pathlib
import statistics
import sys
import textwrap

HERE = pathlib.Path(__file__).parent


def key(name, count):
    return f"{name}, {count:,} port{'s' if count > 1 else ''}"


def count_of(name):
    return int(name.rpartition(", ")[2].split()[0].replace(",", ""))


def cell(found, digits):
    """The median, and the lowest and highest."""
    if not found:
        return "–"
    middle, low, high = (f"{found[name]:,.{digits(found[name])}f}" for name in ("median", "min", "max"))
    return f"{middle} ({low}–{high})" if len(found["values"]) > 1 else middle


def milliseconds(value):
    return 0 if value >= 100 else 1


def table(title, columns, rows):
    lines = [f"| {title} | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items())])


def by_count(title, found, digits):
    """A column for each number of ports."""
    counts = sorted({count_of(name) for name in found})
    names = dict.fromkeys(name.rpartition(", ")[0] for name in found)
    rows = {name: [cell(found.get(key(name, count)), digits) for count in counts] for name in names}
    return table(title, [key("", count)[2:] for count in counts], rows)


def figure(found, digits=milliseconds):
    """The median alone, for a sentence."""
    return f"{found['median']:,.{digits(found['median'])}f}"


def summary(results):
    """One sentence that README.md at the top quotes."""
    count, ports = "100", max(map(count_of, results["tcp"]))
    install, tcp, new = results["install"][count], results["tcp"], results["connections"]
    ours, theirs = key("nodefwd", ports), key("iptables-nft", ports)
    return (
        f"nodefwd's rules for {count} ports are active {figure(install['nodefwd'])} ms after its start; a script that "
        f"runs `iptables-nft` once per rule takes {figure(install['iptables-nft, script'])} ms. With {ports:,} ports "
        f"forwarded, TCP through the last one reaches {figure(tcp[ours], lambda _: 1)} Gbit/s "
        f"(iptables-nft: {figure(tcp[theirs], lambda _: 1)}) and {figure(new[ours], lambda _: 0)} new connections "
        f"per second (iptables-nft: {figure(new[theirs], lambda _: 0)}).")


def machine(results):
    found = results["machine"]
    return (
        f"Measured on {found['cpu']}, {found['cores']} cores, Linux {found['kernel']}, on {found['date']}. The load "
        f"average was {found['load before']:.1f} before the run and {found['load after']:.1f} after it.")


def sentences(results):
    """The figures that need no table."""
    ranges, tracked, memory = results["ranges"], results["tracked"], results["memory"]
    many, none = (cell(tracked[name], milliseconds) for name in ("nodefwd, 100,000 connections", "nodefwd, 0 connections"))
    yield (
        f"With 10,000 source ranges nodefwd is ready after {cell(ranges['nodefwd, 10,000 ranges'], milliseconds)} ms, "
        f"with one after {cell(ranges['nodefwd, 1 range'], milliseconds)} ms. `nft -f` takes "
        f"{cell(ranges['nft -f, 10,000 ranges'], milliseconds)} ms for the same set.")
    yield (
        "With source ranges, and for UDP, nodefwd searches the conntrack table for stale entries when it starts. With "
        f"100,000 entries of other connections in the table it is ready after {many} ms, with none after {none} ms.")
    few, most = ("1 port", f"{max(count_of(name) for name in memory if name.startswith('nodefwd, ')):,} ports")
    others = "; ".join(
        f"{title} has {memory[f'{name}, {few}']:,} KiB and {memory[f'{name}, {most}']:,} KiB"
        for name, title in (("haproxy", "HAProxy"), ("nginx stream", "nginx")))
    yield (
        f"The program's file has {memory[FILE]:,} KiB. Its process has {memory[f'nodefwd, {few}']:,} KiB of private "
        f"memory with one forward and {memory[f'nodefwd, {most}']:,} KiB with {most.split()[0]}; {others}; socat has "
        f"{memory[f'socat, {few}']:,} KiB with one.")


FILE = "nodefwd's file"


def wrapped(text):
    """Lines of a paragraph; `code` stays on one."""
    glued = "`".join(part.replace(" ", "\0") if index % 2 else part for index, part in enumerate(text.split("`")))
    return "\n".join(textwrap.wrap(glued, 110, break_long_words=False, break_on_hyphens=False)).replace("\0", " ")


def page(results):
    install = results["install"]
    names = dict.fromkeys(name for found in install.values() for name in found)
    ranges, tracked, memory = map(wrapped, sentences(results))
    rows = {name: verdict(*rest) for name, *rest in targets(results)}
    return "\n\n".join([
        "<!-- Written by benches/report.py out of results.json; benches/run.sh runs both. -->",
        "# Benchmarks",
        wrapped(summary(results)),
        "![Time until the rules are active, and traffic through a forwarded port](results.svg)",
        "## How it is measured",
        wrapped(
            "`benches/run.sh` measures everything in one run of about ten minutes, as root, between hosts made of "
            "network namespaces. Each round measures the contenders in another order. "
            "`benches/run.sh --quick` does one short round and writes no file. " + machine(results) +
            " The tables show medians, with the lowest and the highest figure in parentheses. Ratios hold on other "
            "machines too, absolute figures do not."),
        "## Time until the rules are active",
        wrapped(
            "Milliseconds from exec until the rules are active. The rules of iptables are those of klipper-lb, four "
            "for each port; a script runs `iptables` once for each rule. Any program takes as long to start as "
            "`true`; the rest is nodefwd's own time."),
        table("forwards", [f"{int(count):,}" for count in install],
              {name: [cell(found.get(name), milliseconds) for found in install.values()] for name in names}),
        ranges,
        tracked,
        "## Traffic through a forwarded port",
        "The port with the traffic is the last of those that are forwarded, the worst place in a list of rules.",
        by_count("TCP, Gbit/s", results["tcp"], lambda _: 1),
        by_count("UDP of 64 bytes, thousand packets/s", results["udp"], lambda _: 0),
        by_count("new HTTP connections/s", results["connections"], lambda _: 0),
        "## Size",
        memory,
        "## Aims",
        wrapped(
            "Each ratio is the median of the ratios of all rounds. The interval in parentheses holds the true ratio "
            "with a probability of 95 %; an aim inside the interval is too close to say."),
        table("nodefwd, compared", ["aim", "found", "result"], rows),
        wrapped(floor(results)),
    ]) + "\n"


def floor(results):
    """What starting a program takes of a script's time for one forward, which no program can go below."""
    found = results["install"]["1"]
    of_nft, of_legacy = (by_rounds(found["true, which does nothing"], found[f"iptables-{variant}, script"])[1]
                         for variant in ("nft", "legacy"))
    return (
        f"For one forward, `true` alone takes {of_nft:.2g} of the time of the script with iptables-nft and "
        f"{of_legacy:.2g} of the one with iptables-legacy: no program can reach less.")


def verdict(compare, wanted, found):
    low, middle, high = found
    reached = middle <= wanted if compare == "at most" else middle >= wanted
    if low < wanted < high:
        word = "too close to say"
    else:
        word = "reached" if reached else "missed"
    return [f"{compare} {wanted:.3g}", f"{middle:.3g} ({low:.3g}–{high:.3g})", word]


def by_rounds(one, other):
    """How one compares with the other: the median of each round's ratio, which no slow minute blurs,
    and an interval around it that holds the true one nineteen times in twenty (order statistics of
    the binomial distribution)."""
    ratios = sorted(a / b for a, b in zip(one["values"], other["values"]))
    count = len(ratios)
    place = max(0, round((count - 1.96 * count**0.5) / 2) - 1)
    return ratios[place], statistics.median(ratios), ratios[-1 - place]


def compared(found):
    """Pairs that are to be alike: one port and iptables' rules for one, many ports and one."""
    counts = sorted({count_of(name) for name in found if name.startswith("nodefwd, ")})
    few, many = key("nodefwd", counts[0]), key("nodefwd", counts[-1])
    return [(few, key("iptables-nft", 1)), (few, key("iptables-legacy", 1)), (many, few)]


def targets(results):
    """(what, at most or at least, wanted, found)."""
    install = results["install"]
    for count, wanted in (("1", 1 / 10), ("100", 1 / 100)):
        for variant in ("nft", "legacy"):
            yield (f"time to ready for {count}, against iptables-{variant}, script", "at most", wanted,
                   by_rounds(install[count]["nodefwd"], install[count][f"iptables-{variant}, script"]))
    for count, found in install.items():
        yield (f"time to ready for {int(count):,}, against nft -f", "at most", 1,
               by_rounds(found["nodefwd"], found["nft -f"]))
    ranges = results["ranges"]
    together = {"values": [5 * one + nft for one, nft in zip(
        ranges["nodefwd, 1 range"]["values"], ranges["nft -f, 10,000 ranges"]["values"])]}
    yield ("time to ready with 10,000 ranges, against 5 times one range's and nft's", "at most", 1,
           by_rounds(ranges["nodefwd, 10,000 ranges"], together))
    for kind, name in (("tcp", "TCP"), ("udp", "UDP"), ("connections", "connections")):
        for one, other in compared(results[kind]):
            yield f"{name}: {one}, against {other}", "at least", 0.97, by_rounds(
                results[kind][one], results[kind][other])


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    print(page(json.loads((HERE / "results.json").read_text(encoding="utf-8"))), end="")
