"""Writes README.md out of results.json: Markdown tables, and which aims are reached. Prints it. A section
that results.json lacks is left out."""

import json
import pathlib
import sys
import textwrap

import aims
import kernels_report
from figures import FILE, by_rounds, count_of, counts_of, key
from tables import cell, table

HERE = pathlib.Path(__file__).parent
COPYING = (("haproxy", "HAProxy"), ("nginx stream", "nginx"), ("socat", "socat"))
# The sections of results.json about installations: each is a metric of lives.py.
INSTALLATION = {"install": "ready", "install cpu": "start cpu", "removal": "removal", "removal cpu": "removal cpu"}


def milliseconds(value):
    return 0 if value >= 100 else 1


def by_count(title, found, digits):
    """A column for each number of ports."""
    counts = sorted({count_of(name) for name in found})
    names = dict.fromkeys(name.rpartition(", ")[0] for name in found)
    rows = {name: [cell(found.get(key(name, count)), digits) for count in counts] for name in names}
    return table(title, [key("", count)[2:] for count in counts], rows)


def by_forwards(title, found):
    """A column for each number of forwards, in milliseconds."""
    names = dict.fromkeys(name for by_contender in found.values() for name in by_contender)
    rows = {name: [cell(by_contender.get(name), milliseconds) for by_contender in found.values()] for name in names}
    return table(title, [f"{int(count):,}" for count in found], rows)


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


def method(results):
    found = results["machine"]
    yield "## How it is measured"
    yield (
        "`benches/run.sh` measures everything in one run of 9 to 12 minutes, as root, between hosts made of "
        "network namespaces, beside one with a firewall of its own. Each round measures the contenders in another "
        "order. `benches/run.sh --quick` does one short round and writes no file. "
        f"Measured on {found['cpu']}, {found['cores']} cores, Linux {found['kernel']}, on {found['date']}. The load "
        f"average was {found['load before']:.1f} before the run and {found['load after']:.1f} after it. The tables "
        "show medians, with the lowest and the highest figure in parentheses. Ratios hold on other machines too, "
        "absolute figures do not.")


def installation(results):
    yield "## Time until the rules are active"
    yield (
        "Milliseconds from exec until the rules are active. The rules of iptables are those of klipper-lb, four for "
        "each port, or where the table says so the two of its original script; a script runs `iptables` once for each "
        "rule. `nft -f` loads what `nodefwd render` prints. Any program takes as long to start as `true`; the rest is "
        "nodefwd's own time.")
    yield by_forwards("forwards", results["install"])
    if "install cpu" in results:
        yield (
            "CPU that this takes, user and system, in milliseconds; for nodefwd it includes what it does after it is "
            "ready. What the kernel frees later in threads of its own is in no row.")
        yield by_forwards("forwards, CPU", results["install cpu"])


def removal(results):
    if "removal" not in results:
        return
    yield "## Removal"
    yield (
        "Milliseconds from TERM until nodefwd has ended, with all rules and its conntrack entries deleted; for "
        "other programs, until nft has deleted the table or `iptables-restore` has emptied its tables.")
    yield by_forwards("forwards", results["removal"])
    yield "CPU that this takes, user and system, in milliseconds:"
    yield by_forwards("forwards, CPU", results["removal cpu"])


def one_forward(results):
    if "one forward" not in results:
        return
    found = results["one forward"]
    tcp, udp, nft_tcp, nft_udp = (cell(found[f"{program}, {protocol}"], milliseconds)
                                  for program in ("nodefwd", "nft") for protocol in ("tcp", "udp"))
    yield (
        f"A start and stop of one TCP forward in a namespace without connections takes {tcp} ms of CPU, of one UDP "
        f"forward {udp}. nft takes {nft_tcp} and {nft_udp} ms to load and to delete the same tables; "
        f"`true` takes {cell(found['true, which does nothing'], milliseconds)}.")


def source_ranges(results):
    ranges = results["ranges"]
    yield (
        f"With 10,000 source ranges nodefwd is ready after {cell(ranges['nodefwd, 10,000 ranges'], milliseconds)} ms, "
        f"with one after {cell(ranges['nodefwd, 1 range'], milliseconds)} ms. `nft -f` takes "
        f"{cell(ranges['nft -f, 10,000 ranges'], milliseconds)} ms for the same set.")


def foreign_entries(results):
    if "foreign" not in results:
        return
    found = results["foreign"]
    names = (name.removesuffix(aims.NONE) for name in found if name.endswith(aims.NONE))
    rows = {name: [cell(found[name + count], milliseconds) for count in (aims.NONE, aims.MANY)] for name in names}
    yield (
        "With source ranges, and for UDP, nodefwd looks for stale conntrack entries before it is ready; for TCP without "
        "a reply right afterwards, as such clients try again. Milliseconds until it is ready among entries of "
        "connections that it does not forward:")
    yield table("one forward", ["no entries", "100,000 entries"], rows)


def replacement(results):
    if "replacement" not in results:
        return
    found = results["replacement"]
    yield (
        f"With `--replace`, {found['forwards']:,} forwards take the place of as many, of which one differs, after "
        f"{cell(found['replacement'], milliseconds)} ms; a start of the same forwards where none run takes "
        f"{cell(found['start'], milliseconds)} ms.")


def health(results):
    if "health" not in results:
        return
    found = results["health"]
    yield (
        f"To try {found['destinations']:,} destinations every {found['seconds']} seconds takes "
        f"{cell(found['share'], lambda _: 2)} % of a core, the destinations' side of the connections included.")


def products(results):
    if "products" not in results:
        return
    found = list(results["products"].items())
    rows = {}
    for (small, lesser), (large, greater) in zip(found[::2], found[1::2]):
        rows[small] = [cell(lesser, milliseconds), "–"]
        rows[large] = [cell(greater, milliseconds), f"{by_rounds(greater, lesser)[1]:.1f}"]
    yield "## Where work could grow with a product"
    yield (
        "Each factor of a second line is ten times that of the line above it. Growth is the ratio of the two times: 10 "
        "is linear, 100 is the product of two factors. What `render` prints grows with the product itself.")
    yield table("milliseconds until it is done", ["time", "growth"], rows)


def traffic(results):
    yield "## Traffic through a forwarded port"
    yield "The port with the traffic is the last of those that are forwarded, the worst place in a list of rules."
    yield by_count("TCP, Gbit/s", results["tcp"], lambda _: 1)
    yield by_count("UDP of 64 bytes, thousand packets/s", results["udp"], lambda _: 0)
    yield by_count("new HTTP connections/s", results["connections"], lambda _: 0)


def size(results):
    memory = results["memory"]

    def process(name):
        counts = counts_of(memory, name)
        figures = [f"{memory[key(name, count)]:,} KiB with {'one' if count == 1 else f'{count:,}'}" for count in counts]
        return " and ".join(filter(None, (", ".join(figures[:-1]), figures[-1])))

    copying = "; ".join(f"{title} {process(name)}" for name, title in COPYING)
    yield "## Size"
    yield (
        f"The program's file has {memory[FILE]:,} KiB. Private memory of its process, by the number of forwards: "
        f"{process('nodefwd')}. Programs that copy every byte: {copying}.")


def aim_table(results):
    yield "## Aims"
    yield (
        "Each ratio is the median of the ratios of all rounds; what is in milliseconds is the median of all rounds. "
        "The interval in parentheses holds the true figure with a probability of 95 %; an aim inside the interval is "
        "too close to say.")
    yield table("nodefwd, compared", ["aim", "found", "result"], aims.rows(results))
    yield floor(results)


def floor(results):
    """What starting a program takes of a script's time for one forward, which no program can go below."""
    found = results["install"]["1"]
    of_nft, of_legacy = (by_rounds(found["true, which does nothing"], found[f"iptables-{variant}, script"])[1]
                         for variant in ("nft", "legacy"))
    return (
        f"For one forward, `true` alone takes {of_nft:.2g} of the time of the script with iptables-nft and "
        f"{of_legacy:.2g} of the one with iptables-legacy: no program can reach less.")


PARTS = (method, installation, source_ranges, foreign_entries, replacement, removal, one_forward, health, products, traffic,
         size, aim_table, kernels_report.part)


def page(results):
    head = [
        "<!-- Written by benches/report.py out of results.json; benches/run.sh runs both. -->",
        "# Benchmarks",
        wrapped(summary(results)),
        "![Time until the rules are active, and traffic through a forwarded port](results.svg)",
    ]
    body = (text if text.startswith(("#", "|", "!")) else wrapped(text) for part in PARTS for text in part(results))
    return "\n\n".join([*head, *body]) + "\n"


def wrapped(text):
    """Lines of a paragraph; `code` stays on one."""
    glued = "`".join(part.replace(" ", "\0") if index % 2 else part for index, part in enumerate(text.split("`")))
    return "\n".join(textwrap.wrap(glued, 110, break_long_words=False, break_on_hyphens=False)).replace("\0", " ")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    print(page(json.loads((HERE / "results.json").read_text(encoding="utf-8"))), end="")
