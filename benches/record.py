"""Puts what a guest of benches/kernels.sh has measured into kernels.json; prints its part of README.md.
Arguments: the kernel, the guest's output; --quick: writes no file."""

import datetime
import json
import pathlib
import re
import sys

import kernels_report
from kernels_report import RESULTS


def main():
    kernel, output = sys.argv[1:3]
    [line] = re.findall("^results: (.*)", pathlib.Path(output).read_text(encoding="utf-8"), re.MULTILINE)
    found = {"date": datetime.date.today().isoformat(), **json.loads(line)}
    print("\n\n".join(kernels_report.of({kernel: found})))
    if "--quick" not in sys.argv:
        results = {**kernels_report.read(), kernel: found}
        ordered = {name: results[name] for name in kernels_report.KERNELS if name in results}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


main()
