"""Measures everything in one run, round by round, and writes results.json; --quick: one short round."""

import datetime
import json
import os
import pathlib
import platform
import re
import signal
import sys
import tempfile
import time

import health
import products
import report
import starts
import traffic
from hosts import Hosts
from rounds import QUICK

RESULTS = pathlib.Path(__file__).parent / "results.json"
LIMIT = 5 * 60 if QUICK else 30 * 60  # seconds


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "date": datetime.date.today().isoformat(),
        "load before": os.getloadavg()[0],
    }


def measure(hosts, directory):
    results = {"machine": machine()}

    def section(name, found):
        results[name] = found
        print(f"{name}: after {time.monotonic() - begin:.0f} s", file=sys.stderr)

    begin = time.monotonic()
    by_metric = starts.installations()
    for name, metric in report.INSTALLATION.items():
        section(name, by_metric[metric])
    section("one forward", starts.one_forward())
    section("ranges", starts.source_ranges())
    section("foreign", starts.foreign_entries())
    section("products", products.products())
    section("replacement", starts.replacements())
    section("health", health.share())
    for name, found in traffic.measure(hosts, directory).items():
        section(name, found)
    results["machine"]["load after"] = os.getloadavg()[0]
    return results


def main():
    # A signal is an error like any other, so that the namespaces are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by a signal"))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("the whole run took too long"))
    signal.alarm(LIMIT)
    with tempfile.TemporaryDirectory(prefix="nodefwd-bench-") as directory, Hosts() as hosts:
        os.chmod(directory, 0o755)  # nginx reads it as another user
        hosts.bystander()
        results = measure(hosts, directory)
    print(report.page(results))
    if not QUICK:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


main()
