"""Draws results.svg from results.json: time until active, and what more ports cost a packet."""

import json
import math
import pathlib

HERE = pathlib.Path(__file__).parent
COLOURS = {
    "nodefwd": "#0b6e4f", "nft -f": "#5fad56", "iptables-nft-restore": "#8ab0d9",
    "iptables-legacy-restore": "#c9b1e0", "iptables-nft script": "#2b6cb0",
    "iptables-legacy script": "#7e57c2", "iptables-nft": "#2b6cb0", "iptables-legacy": "#7e57c2",
}
WIDTH, HEIGHT, LEFT, TOP = 860, 330, 60, 50


def text(x, y, words, anchor="start", size=12):
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}">{words}</text>'


def install(results):
    """Lines over two logarithmic axes."""
    found = results["install ms"]
    counts = [int(count) for count in found]
    values = [value["median"] for row in found.values() for value in row.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    width, height = 330, 220
    x = lambda count: LEFT + width * math.log10(count) / math.log10(counts[-1])
    y = lambda value: TOP + height * (high - math.log10(value)) / (high - low)
    parts = [text(LEFT, TOP - 22, "Milliseconds until the rules are active", size=14)]
    for power in range(low, high + 1):
        height_there = y(10 ** power)
        parts.append(f'<path d="M{LEFT} {height_there:.0f}h{width}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, height_there + 4, f"{10 ** power:,g}", "end"))
    for count in counts:
        parts.append(text(x(count), TOP + height + 18, f"{count:,}", "middle"))
    parts.append(text(LEFT + width / 2, TOP + height + 38, "ports", "middle"))
    ends = []
    for name in found[str(counts[0])]:
        points = [(x(int(count)), y(row[name]["median"])) for count, row in found.items() if name in row]
        line = " ".join(f"{px:.0f},{py:.0f}" for px, py in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        ends.append((points[-1][1], points[-1][0], name))
    lowest = 0
    for py, px, name in sorted(ends):
        lowest = max(py, lowest + 14)  # names must not lie upon each other
        parts.append(f'<g fill="{COLOURS[name]}">{text(px + 6, lowest + 4, name)}</g>')
    return parts


def packets(results):
    """Bars: small packets a second with few and with many ports."""
    unit = "UDP 64 B thousand packets/s"
    found = results[unit]
    left, width, height = 580, 260, 220
    highest = max(value["max"] for value in found.values())
    parts = [text(left, TOP - 22, "Thousands of small packets a second", size=14)]
    names = list(found)
    step = height / len(names)
    for index, name in enumerate(names):
        value = found[name]["median"]
        colour = COLOURS.get(name.split(",")[0], "#999")
        top = TOP + index * step
        parts.append(f'<rect x="{left}" y="{top + 2:.0f}" width="{width * value / highest:.0f}" '
                     f'height="{step - 4:.0f}" fill="{colour}" opacity="0.55"/>')
        parts.append(text(left + 6, top + step / 2 + 4, f"{name}: {value:.0f}"))
    return parts


def main():
    results = json.loads((HERE / "results.json").read_text())
    there = results["machine"]
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
             'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>']
    parts += install(results) + packets(results)
    parts.append(text(LEFT, HEIGHT - 6, f'{there["cpu"]}, {there["cores"]} cores, Linux {there["kernel"]}, '
                                        f'{there["date"]}; medians', size=10))
    (HERE / "results.svg").write_text("\n".join(parts) + "\n</svg>\n")


main()
