"""Puts what a guest of benches/kernels.sh has measured into kernels.json; prints its part of README.md.
Arguments: the kernel, the guest's output, this machine's load before; --quick: writes no file."""

import datetime
import json
import os
import pathlib
import re
import sys

import kernels_report
from kernels_report import RESULTS


def main():
    kernel, output, load = sys.argv[1:4]
    [line] = re.findall("^results: (.*)", pathlib.Path(output).read_text(encoding="utf-8"), re.MULTILINE)
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    machine = {"cpu": model[1] if model else os.uname().machine, "cores": os.cpu_count(),
               "date": datetime.date.today().isoformat(), "load before": float(load)}
    found = {**machine, **json.loads(line)}
    print("\n\n".join(kernels_report.of({kernel: found})))
    if "--quick" not in sys.argv:
        results = {**kernels_report.read(), kernel: found}
        ordered = {name: results[name] for name in kernels_report.KERNELS if name in results}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


main()
