"""What the figures say: Markdown tables, and whether the targets are reached."""

import statistics


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


def text(results):
    machine = results["machine"]
    install = results["install"]
    names = dict.fromkeys(name for found in install.values() for name in found)
    return "\n\n".join([
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['date']}, "
        f"load {machine['load before']:.1f} before and {machine['load after']:.1f} after. "
        "Median (lowest–highest) of interleaved rounds.",
        table("ms until the rules are active", [f"{int(count):,}" for count in install],
              {name: [cell(found.get(name), milliseconds) for found in install.values()] for name in names}),
        table("ms until the rules are active", ["1 port"],
              {name: [cell(found, milliseconds)] for name, found in results["ranges"].items()}),
        table("ms until ready for UDP, with so many connections of others tracked", ["1 port"],
              {name: [cell(found, milliseconds)] for name, found in results["tracked"].items()}),
        by_count("TCP, Gbit/s", results["tcp"], lambda _: 1),
        by_count("UDP of 64 bytes, thousand packets/s", results["udp"], lambda _: 0),
        by_count("new HTTP connections/s", results["connections"], lambda _: 0),
        table("private memory", ["KiB"], {name: [f"{size:,}"] for name, size in results["memory"].items()}),
        table("target", ["wanted", "found", ""], {name: verdict(*rest) for name, *rest in targets(results)}),
    ])


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
