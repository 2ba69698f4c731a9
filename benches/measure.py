"""Measures everything in one run, round by round, and writes results.json."""

import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

import contenders as c
from hosts import BACKEND, CLIENT, NODE, Hosts, stop

QUICK = "--quick" in sys.argv
SECONDS = 1
ROUNDS = 1 if QUICK else 5
COUNTS = (1, 10, 100) if QUICK else (1, 10, 100, 1000, 10000)
HERE = pathlib.Path(__file__).parent


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def interleaved(rounds, jobs):
    """Does every job once a round, so that a slow minute of the machine falls on all of them."""
    values = {name: [] for name in jobs}
    for number in range(max(rounds(name) for name in jobs)):
        for name, job in jobs.items():
            if number < rounds(name):
                values[name].append(job())
                print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return {name: summary(found) for name, found in values.items()}


def timed(hosts, command, given=""):
    """Milliseconds that a command takes, from its start to its end."""
    with tempfile.TemporaryFile("w+") as file:
        file.write(given)
        file.seek(0)
        begin = time.perf_counter()
        process = hosts.popen(NODE, command, stdin=file, stdout=subprocess.DEVNULL)
        # Without a timeout: with one, Python looks only now and then whether it has ended.
        status = process.wait()
        elapsed = (time.perf_counter() - begin) * 1000
    if status:
        raise RuntimeError(f"{command} failed")
    return elapsed


def nodefwd_ready(hosts, arguments, env=None):
    begin = time.perf_counter()
    process = c.start_nodefwd(hosts, arguments, env)
    elapsed = (time.perf_counter() - begin) * 1000
    stop(process)
    return elapsed


def install_times(hosts, count):
    """Milliseconds from exec until the rules are active."""
    rendered = c.rendered(count, c.HTTP)
    restored = c.restore(count, c.HTTP)

    def nft():
        elapsed = timed(hosts, ["nft", "-f", "-"], rendered)
        hosts.run(NODE, "nft delete table inet nodefwd-tcp-20000")
        return elapsed

    def iptables(variant, command, given=""):
        elapsed = timed(hosts, command, given)
        c.flush_iptables(hosts, variant)
        return elapsed

    jobs = {
        "nodefwd": lambda: nodefwd_ready(hosts, c.forwards(count, c.HTTP)),
        "nft -f": nft,
        "iptables-nft-restore": lambda: iptables("nft", ["iptables-nft-restore"], restored),
        "iptables-legacy-restore": lambda: iptables("legacy", ["iptables-legacy-restore"], restored),
    }
    if count <= 1000:
        for variant in ("nft", "legacy"):
            text = c.script(variant, count, c.HTTP)
            jobs[f"iptables-{variant} script"] = lambda variant=variant, text=text: iptables(variant, ["sh"], text)

    def rounds(name):
        if count >= 1000 and name.endswith("script"):
            return 1
        return ROUNDS if count >= 1000 else ROUNDS * 3

    return interleaved(rounds, jobs)


def source_ranges(hosts):
    """Milliseconds until 10,000 ranges are active, against one range, and nft with the same set."""
    # Short ones that do not touch each other: one variable holds 128 KiB.
    ranges = [f"{1 + i // 5000}.{i // 500 % 10}.{i // 50 % 10}.{i % 50 * 2}" for i in range(10000)]
    forward = c.forwards(1, c.HTTP)
    many = {"SRC_RANGES": " ".join(ranges)}
    rendered = subprocess.run([c.NODEFWD, "render", *forward], env=many, check=True, text=True,
                              capture_output=True).stdout.replace("\tflags owner\n", "")

    def nft():
        elapsed = timed(hosts, ["nft", "-f", "-"], rendered)
        hosts.run(NODE, "nft delete table inet nodefwd-tcp-20000")
        return elapsed

    return interleaved(lambda _: ROUNDS * 2, {
        "nodefwd, 1 range": lambda: nodefwd_ready(hosts, forward, {"SRC_RANGES": "10.0.0.0/8"}),
        "nodefwd, 10,000 ranges": lambda: nodefwd_ready(hosts, forward, many),
        "nft -f, 10,000 ranges": nft,
    })


def iperf(hosts, contender, *options):
    text = hosts.run(CLIENT, ["iperf3", "-J", "-c", contender.address, "-p", str(contender.port),
                              "-t", str(SECONDS), *options])
    return json.loads(text)["end"]


def gigabits(hosts, contender):
    return iperf(hosts, contender)["sum_received"]["bits_per_second"] / 1e9


def small_packets(hosts, contender):
    """Thousands of 64-byte datagrams a second that arrive."""
    # Each end on a core of its own: where the scheduler puts them would count for more than the rules.
    end = iperf(hosts, contender, "-A", "0,1", "-u", "-b", "0", "-l", "64")["sum"]
    return (end["packets"] - end["lost_packets"]) / end["seconds"] / 1000


def connections(hosts, contender):
    """New connections a second, one request each."""
    url = f"http://{contender.address}:{contender.port}/"
    text = hosts.run(CLIENT, ["ab", "-q", "-c", "16", "-t", str(SECONDS), "-n", "1000000", url])
    return float(re.search(r"Requests per second: +([0-9.]+)", text)[1])


def traffic(hosts, target, measure, kinds):
    """One figure for every contender and number of ports; sets up, measures, takes down."""
    def job(kind, count):
        def measured():
            contender = kind(hosts, count, target)
            try:
                return measure(hosts, contender)
            finally:
                contender.close()
                # No contender finds the table of connections filled by another.
                hosts.run(NODE, "conntrack -F")
        return measured

    jobs = {name: job(kind, count) for name, kind, count in kinds}
    return interleaved(lambda _: ROUNDS, jobs)


def kinds(counts, proxies):
    listed = [("routing", c.Routing, 1)]
    for count in counts:
        listed += [(f"{name}, {count} ports", kind, count) for name, kind in c.KERNEL.items()]
    if proxies:
        listed += [(name, kind, 1) for name, kind in c.PROXIES.items()]
    return listed


def memory(hosts):
    """KiB that the process has to itself, and the program's size."""
    found = {"binary": os.path.getsize(c.NODEFWD) // 1024}
    for count in (1, 1000):
        process = c.start_nodefwd(hosts, c.forwards(count, c.HTTP))
        rollup = pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        found[f"anonymous, {count} forwards"] = int(re.search(r"Anonymous: +(\d+)", rollup)[1])
        stop(process)
    return found


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "date": datetime.date.today().isoformat(),
        "load before": os.getloadavg()[0],
    }


def main():
    results = {"machine": machine()}
    ports = (1, 100) if QUICK else (1, 100, 1000)
    with Hosts() as hosts:
        results["install ms"] = {str(count): install_times(hosts, count) for count in COUNTS}
        results["source ranges ms"] = source_ranges(hosts)
        hosts.start(BACKEND, ["iperf3", "-s"])
        hosts.wait_for_port(BACKEND, c.IPERF)
        results["TCP Gbit/s"] = traffic(hosts, c.IPERF, gigabits, kinds(ports, proxies=True))
        results["UDP 64 B thousand packets/s"] = traffic(hosts, c.IPERF, small_packets, kinds(ports, False))
        directory = tempfile.mkdtemp()
        pathlib.Path(directory, "index.html").write_text("hello\n")
        pathlib.Path(directory, "nginx").write_text(
            f"daemon off; worker_processes 1; pid {directory}/pid; error_log /dev/null;"
            "events { worker_connections 4096; }"
            f"http {{ access_log off; server {{ listen {c.HTTP}; root {directory}; }} }}")
        os.chmod(directory, 0o755)
        hosts.start(BACKEND, ["nginx", "-c", f"{directory}/nginx"])
        hosts.wait_for_port(BACKEND, c.HTTP)
        results["new connections/s"] = traffic(hosts, c.HTTP, connections, kinds((ports[0], ports[-1]), True))
        results["KiB"] = memory(hosts)
    show(results)
    if not QUICK:
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def show(results):
    print(results["machine"])
    for count, found in results["install ms"].items():
        print_table(f"ms until active, {count} forwards", found)
    for name in ("source ranges ms", "TCP Gbit/s", "UDP 64 B thousand packets/s", "new connections/s"):
        print_table(name, results[name])
    print(results["KiB"])


def print_table(title, found):
    print(f"\n{title}")
    for name, value in found.items():
        print(f"  {name:32} {value['median']:10.2f}   {value['min']:.2f} - {value['max']:.2f} ({value['n']})")


main()
