"""Draws results.svg from results.json: figures over the number of ports."""

import json
import math
import pathlib

import kernels_report
from figures import FILE, by_rounds, count_of, key

HERE = pathlib.Path(__file__).parent
COLOURS = {"nodefwd": "#d1361b", "nft -f": "#e59a2f", "iptables-nft": "#2b6cb0", "iptables-legacy": "#7e57c2",
           "routing": "#555", "haproxy": "#2f855a", "nginx stream": "#4a9d9c", "socat": "#8a8a3c", "IPVS": "#2f855a"}
WIDTH, HEIGHT = 300, 210  # of one figure, without its words
LABELS = 195  # room for the names of lines


def text(x, y, words, anchor="start", style=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style}>{words}</text>'


def ticks(highest):
    """About four round numbers from 0 on."""
    step = 10 ** math.floor(math.log10(highest / 2))
    step = next(step * factor for factor in (1, 2, 5, 10) if highest / (step * factor) <= 5)
    return [step * index for index in range(math.floor(highest / step) + 1)]


def dashes(program, variant):
    if variant in ("2 rules", "fast path"):
        return ' stroke-dasharray="2 3"'
    return ' stroke-dasharray="5 3"' if program.endswith("-restore") else ""


def plot(title, lines, logarithmic):
    """Lines by name, each {ports: figure}."""
    counts = sorted({count for line in lines.values() for count in line})
    figures = [figure for line in lines.values() for figure in line.values()]
    low, high = 0, max(figures) * 1.05
    marks = ticks(high)
    if logarithmic:
        low, high = math.floor(math.log10(min(figures))), math.ceil(math.log10(max(figures)))
        marks = [10 ** power for power in range(low, high + 1)]

    def x(count):
        return WIDTH * math.log10(count) / math.log10(counts[-1])

    def y(figure):
        return HEIGHT * (1 - ((math.log10(figure) if logarithmic else figure) - low) / (high - low))

    parts = [text(0, -14, title, style='font-size="14" font-weight="bold"'),
             text(WIDTH / 2, HEIGHT + 36, "ports configured", "middle")]
    for mark in marks:
        parts += [f'<path d="M0 {y(mark):.1f}h{WIDTH}" stroke="#ddd"/>', text(-6, y(mark) + 4, f"{mark:,g}", "end")]
    parts += [text(x(count), HEIGHT + 18, f"{count:,}", "middle") for count in counts]
    ends = []
    for name, line in lines.items():
        program, _, variant = name.partition(", ")
        colour = COLOURS[program.removesuffix("-restore")]
        dashed = dashes(program, variant)
        points = [(x(count), y(figure)) for count, figure in sorted(line.items())]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>')
        parts += [f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{colour}"/>' for across, down in points]
        ends.append((points[-1][1], points[-1][0], name, colour))
    free = {}
    for down, across, name, colour in sorted(ends):
        column = WIDTH if len(lines[name]) > 1 else across
        down = free[column] = max(down, free.get(column, -math.inf) + 13)  # names must not overlap
        parts.append(text(column + 8, down + 4, name, style=f'fill="{colour}"'))
    return parts


def medians(found):
    """The figures of a table by contender and number of ports."""
    lines = {}
    for key, value in found.items():
        if key != FILE:
            figure = value["median"] if isinstance(value, dict) else value
            lines.setdefault(key.rpartition(", ")[0], {})[count_of(key)] = figure
    return lines


def installations(found):
    lines = {}
    for count, row in found.items():
        for name, value in row.items():
            if not name.startswith("true") and not name.endswith("clock"):
                lines.setdefault(name, {})[int(count)] = value["median"]
    return lines


# (title, section of results.json, how to read it, logarithmic)
PLOTS = (
    ("Time until the rules are active, ms", "install", installations, True),
    ("Time until the rules are removed, ms", "removal", installations, True),
    ("Packets of 64 bytes, thousands a second", "udp", medians, False),
    ("TCP through the last port, Gbit/s", "tcp", medians, False),
    ("New connections a second", "connections", medians, False),
    ("Private memory, KiB", "memory", medians, True),
)


def ratios(contenders):
    """The ratios to routing, as kernels.json has them of a path."""
    base = contenders[key("routing", 1)]
    return medians({name: by_rounds(figures, base)[1] for name, figures in contenders.items() if "beside" not in name})


def draw(file, plots, words):
    across, down = WIDTH + LABELS + 70, HEIGHT + 90
    bottom = (len(plots) + 1) // 2 * down
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * across} {bottom + 24}" '
             'font-family="sans-serif" font-size="12" fill="#222"><rect width="100%" height="100%" fill="white"/>']
    for index, lines in enumerate(plots):
        parts += [f'<g transform="translate({index % 2 * across + 60} {index // 2 * down + 40})">', *lines, "</g>"]
    parts.append(text(10, bottom + 14, f"{words}; medians of interleaved rounds", style='font-size="10"'))
    (HERE / file).write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")


def main():
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    machine = results["machine"]
    plots = [plot(title, read(results[section]), logarithmic)
             for title, section, read, logarithmic in PLOTS if section in results]
    draw("results.svg", plots,
         f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['date']}")
    kernels = kernels_report.read().values()
    if kernels:
        plots = [plot(f"{kernels_report.name(it)}: packets a second, against routing",
                      ratios(it["packets"]["two interfaces, IPv4"]), False) for it in kernels]
        draw("kernels.svg", plots, "Stock kernels of Debian in QEMU, two interfaces, IPv4")


main()
