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
    reached = found <= wanted if compare == "at most" else found >= wanted
    return [f"{compare} {wanted:.3g}", f"{found:.3g}", "reached" if reached else "missed"]


def by_rounds(one, other):
    """How one compares with the other: the median of each round's ratio, which no slow minute blurs."""
    return statistics.median(a / b for a, b in zip(one["values"], other["values"]))


def targets(results):
    """(what, at most or at least, wanted, found)."""
    install = results["install"]
    median = {count: {name: value["median"] for name, value in found.items()} for count, found in install.items()}
    for count, wanted in (("1", 1 / 10), ("100", 1 / 100)):
        for variant in ("nft", "legacy"):
            yield (f"time to ready for {count}, against iptables-{variant}, script", "at most", wanted,
                   median[count]["nodefwd"] / median[count][f"iptables-{variant}, script"])
    for count, found in median.items():
        yield f"time to ready for {int(count):,}, against nft -f", "at most", 1, found["nodefwd"] / found["nft -f"]
    ranges = {name: found["median"] for name, found in results["ranges"].items()}
    yield ("time to ready with 10,000 ranges, against 5 times one range's and nft's", "at most", 1,
           ranges["nodefwd, 10,000 ranges"] / (5 * ranges["nodefwd, 1 range"] + ranges["nft -f, 10,000 ranges"]))
    for kind, name in (("tcp", "TCP"), ("udp", "UDP"), ("connections", "connections")):
        found = results[kind]
        few, many = (key("nodefwd", count) for count in sorted({count_of(name) for name in found})[::len(
            {count_of(name) for name in found}) - 1])
        best = max((found[key(f"iptables-{variant}", 1)] for variant in ("nft", "legacy")),
                   key=lambda value: value["median"])
        yield f"{name} through 1 port, against the better iptables", "at least", 0.97, by_rounds(found[few], best)
        yield f"{name} with {many.split(', ')[1]}, against {few.split(', ')[1]}", "at least", 0.97, by_rounds(
            found[many], found[few])
