"""What nodefwd is to reach, compared with other programs in the same run."""

from figures import by_rounds, counts_of, interval, key

NONE, MANY = ", 0 entries", ", 100,000 entries"
AT_MOST, AT_LEAST = "at most", "at least"


def rows(results):
    """{what: [aim, found, result]}"""
    found = (aim for part in PARTS for aim in part(results))
    return {name: verdict(*rest) for name, *rest in found}


def verdict(compare, wanted, found):
    low, middle, high = found
    reached = middle <= wanted if compare == AT_MOST else middle >= wanted
    if low < wanted < high:
        word = "too close to say"
    else:
        word = "reached" if reached else "missed"
    return [f"{compare} {wanted:.3g}", f"{middle:.3g} ({low:.3g}–{high:.3g})", word]


def scripts(results):
    """(what, at most or at least, wanted, found), as from each part below."""
    install = results["install"]
    for count, wanted in (("1", 1 / 10), ("100", 1 / 100)):
        for variant in ("nft", "legacy"):
            yield (f"time to ready for {count}, against iptables-{variant}, script", AT_MOST, wanted,
                   by_rounds(install[count]["nodefwd"], install[count][f"iptables-{variant}, script"]))


def restores(results):
    legacy, original = "iptables-legacy-restore", "iptables-legacy-restore, 2 rules"
    for count, name, wanted in (("1", legacy, 1), ("10", legacy, 1), ("10000", legacy, 0.4), ("10000", original, 0.6)):
        found = results["install"].get(count, {})
        if name in found:
            yield (f"time to ready for {int(count):,}, against {name}", AT_MOST, wanted,
                   by_rounds(found["nodefwd"], found[name]))


def nft(results):
    for count, found in results["install"].items():
        yield (f"time to ready for {int(count):,}, against nft -f", AT_MOST, 0.5 if count == "10000" else 1,
               by_rounds(found["nodefwd"], found["nft -f"]))


def removal(results):
    found = results.get("removal cpu", {}).get("10000")
    if found:
        yield "removal of 10,000, milliseconds of CPU", AT_MOST, 50, interval(found["nodefwd"]["values"])


def one_forward(results):
    found = results.get("one forward")
    for protocol in ("tcp", "udp") if found else ():
        yield (f"CPU of a start and stop of one forward, {protocol}, against nft -f and nft delete", AT_MOST, 0.6,
               by_rounds(found[f"nodefwd, {protocol}"], found[f"nft, {protocol}"]))


def foreign_entries(results):
    found = results.get("foreign", {})
    for name in (name.removesuffix(NONE) for name in found if name.endswith(NONE)):
        yield (f"time to ready among 100,000 foreign entries, {name}, against none", AT_MOST, 3,
               by_rounds(found[name + MANY], found[name + NONE]))


def health(results):
    found = results.get("health")
    if found:
        what = f"trying {found['destinations']:,} destinations every {found['seconds']} seconds, percent of a core"
        yield what, AT_MOST, 1, interval(found["share"]["values"])


def source_ranges(results):
    ranges = results["ranges"]
    together = {"values": [5 * one + nft for one, nft in zip(
        ranges["nodefwd, 1 range"]["values"], ranges["nft -f, 10,000 ranges"]["values"])]}
    yield ("time to ready with 10,000 ranges, against 5 times one range's and nft's", AT_MOST, 1,
           by_rounds(ranges["nodefwd, 10,000 ranges"], together))


def alike(found):
    """Pairs that are to be alike: one port and iptables' rules for one, many ports and one."""
    counts = counts_of(found, "nodefwd")
    few, many = key("nodefwd", counts[0]), key("nodefwd", counts[-1])
    return [(few, key("iptables-nft", 1)), (few, key("iptables-legacy", 1)), (many, few)]


def traffic(results):
    for kind, name in (("tcp", "TCP"), ("udp", "UDP"), ("connections", "connections")):
        for one, other in alike(results[kind]):
            yield f"{name}: {one}, against {other}", AT_LEAST, 0.97, by_rounds(results[kind][one], results[kind][other])


PARTS = scripts, restores, nft, removal, one_forward, foreign_entries, source_ranges, health, traffic
