"""Names of measured figures, and how they compare."""

import statistics

FILE = "nodefwd's file"


def key(name, count):
    return f"{name}, {count:,} port{'s' if count > 1 else ''}"


def count_of(name):
    return int(name.rpartition(", ")[2].split()[0].replace(",", ""))


def counts_of(found, contender):
    """The numbers of ports with which a contender was measured."""
    return sorted(count_of(name) for name in found if name.startswith(f"{contender}, "))


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "values": [round(value, 3) for value in values]}


def interval(values):
    """The median, and an interval around it that holds the true one nineteen times in twenty (order
    statistics of the binomial distribution)."""
    values = sorted(values)
    count = len(values)
    place = max(0, round((count - 1.96 * count**0.5) / 2) - 1)
    return values[place], statistics.median(values), values[-1 - place]


def by_rounds(one, other):
    """How one compares with the other: the ratios of each round, which no slow minute blurs."""
    return interval([a / b for a, b in zip(one["values"], other["values"])])
