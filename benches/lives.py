"""The start and the end of each contender's rules, in a namespace of their own: time and CPU.

CPU is what wait4 says of the process, user and system, with the children that it waited for. What the
kernel does later in threads of its own, such as freeing memory, is part of no contender's figure."""

import os
import pathlib
import re
import subprocess
import time

import contenders as c
from hosts import fresh, write

IDLE = 0.05  # seconds without any CPU after which a process has nothing left to do
IDLE_LIMIT = 30


def wait(process):
    """Waits for a process. Gives the milliseconds of CPU that it took."""
    # Without a time limit: Python would look only now and then. The whole run has one.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{process.args} failed: {process.returncode}")
    return (usage.ru_utime + usage.ru_stime) * 1000


def cpu_until_now(process):
    """Seconds of CPU that a process has taken."""
    # The clock of clock_getcpuclockid(3): CPUCLOCK_SCHED of a process (linux/posix-timers.h).
    return time.clock_gettime((~process.pid << 3) | 2)


def cpu_when_idle(process):
    """Waits until a process rests. Gives the milliseconds of CPU that it has taken."""
    taken, deadline = -1, time.monotonic() + IDLE_LIMIT
    while taken != (taken := cpu_until_now(process)) or not sleeps(process):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args[0]} does not come to rest")
        time.sleep(IDLE)
    return taken * 1000


def sleeps(process):
    """Whether it waits; on a busy machine a process that could run may get no CPU for a while."""
    state = pathlib.Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2]
    return state.startswith("S")


def own_figure(line):
    """Milliseconds that nodefwd itself says it took."""
    return float(re.search(r"after ([0-9.]+) ms$", line.strip()).group(1))


def ready(host, arguments, environment):
    """Milliseconds until nodefwd's line is here, and the process."""
    begin, process, line = c.start_nodefwd(host, arguments, environment)
    return {"ready": (time.perf_counter() - begin) * 1000, "own": own_figure(line)}, process


def run_command(host, command, path):
    """Milliseconds of time and CPU of a command that reads this file."""
    with open(path, "rb") as file:
        begin, process = host.popen(command, stdin=file, stdout=subprocess.DEVNULL)
        cpu = wait(process)
        return (time.perf_counter() - begin) * 1000, cpu


def of_nodefwd(arguments, environment):
    """Measures a start until it is idle, and a stop from TERM on."""
    def measure(host, _):
        found, process = ready(host, arguments, environment)
        start_cpu = cpu_when_idle(process)
        begin = time.perf_counter()
        process.terminate()
        cpu = wait(process)
        removal = (time.perf_counter() - begin) * 1000
        return {**found, "removal": removal, "start cpu": start_cpu, "removal cpu": cpu - start_cpu,
                "cpu": cpu}

    return lambda: fresh(measure)


def of_commands(install, text, remove=None, removal_text=""):
    """Measures a command that reads this text, and the one that removes the rules."""
    def measure(host, directory):
        time_taken, cpu = run_command(host, install, write(f"{directory}/install", text))
        found = {"ready": time_taken, "start cpu": cpu, "cpu": cpu}
        if remove:
            removal, removal_cpu = run_command(host, remove, write(f"{directory}/remove", removal_text))
            found |= {"removal": removal, "removal cpu": removal_cpu, "cpu": cpu + removal_cpu}
        return found

    return lambda: fresh(measure)


def of_nft(arguments, environment):
    text, table = c.rendered(arguments, environment)
    return of_commands(["nft", "-f", "-"], text, ["nft", "delete", "table", "inet", table])


def of_restore(variant, rules):
    rules = list(rules)
    command = [f"iptables-{variant}-restore"]
    return of_commands(command, c.restore(rules), command, c.empty(rules))


def until_ready(arguments, environment, prepare=lambda host: None):
    """Measures a start in a prepared namespace."""
    def measure(host, _):
        prepare(host)
        found, _ = ready(host, arguments, environment)
        return found

    return lambda: fresh(measure)
