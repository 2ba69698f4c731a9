"""The order of measurements, and their figures."""

import random
import sys

from figures import summary

QUICK = "--quick" in sys.argv
ROUNDS = 1 if QUICK else 7


def interleaved(jobs, rounds=lambda name: ROUNDS):
    """Runs every job once a round, in another order each time, so that a slow minute of the machine and
    whatever a job leaves behind affect all of them; one with fewer rounds runs in some of them, evenly
    spread. A job returns its figures by metric. Gives {metric: {job: figures, round by round}}."""
    values = {}
    most = max(map(rounds, jobs))
    for number in range(most):
        for name in random.sample(list(jobs), len(jobs)):
            if number * rounds(name) % most < rounds(name):
                for metric, figure in jobs[name]().items():
                    values.setdefault(metric, {}).setdefault(name, []).append(figure)
        print(".", end="", flush=True, file=sys.stderr)
    found = {metric: {name: summary(by_job[name]) for name in jobs if name in by_job}
             for metric, by_job in values.items()}
    show(found)
    return found


def show(found):
    print(file=sys.stderr)
    for metric, by_job in found.items():
        medians = {name: round(value["median"], 2) for name, value in by_job.items()}
        print(f"{metric}: {medians}", file=sys.stderr)
