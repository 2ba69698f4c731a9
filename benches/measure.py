"""Measures everything in one run, round by round, and writes results.json; --quick: one short round."""

import datetime
import json
import os
import pathlib
import platform
import random
import re
import signal
import statistics
import sys
import tempfile
import time

import contenders as c
import report
from hosts import LIMIT, Host, Hosts, stop, write

QUICK = "--quick" in sys.argv
ROUNDS = 1 if QUICK else 7
INSTALLED = (1, 10, 100) if QUICK else (1, 10, 100, 1000, 10000)
PORTS = (1, 100) if QUICK else (1, 100, 1000)
DESTINATION = "10.91.0.2"
SETTLE = 0.2  # seconds in which the kernel frees what the last namespace held
RESULTS = pathlib.Path(__file__).parent / "results.json"


def interleaved(jobs, rounds=lambda name: ROUNDS):
    """Does every job once a round, in another order each time, so that a slow minute of the machine
    and whatever a job leaves behind fall on all of them; one with fewer rounds is done in some of them,
    evenly spread. Gives each one's figures, round by round."""
    values = {name: [] for name in jobs}
    most = max(map(rounds, jobs))
    for number in range(most):
        for name in random.sample(list(jobs), len(jobs)):
            if number * rounds(name) % most < rounds(name):
                values[name].append(jobs[name]())
        print(".", end="", flush=True, file=sys.stderr)
    found = {name: summary(figures) for name, figures in values.items()}
    print("", {name: round(value["median"], 2) for name, value in found.items()}, file=sys.stderr)
    return found


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "values": [round(value, 3) for value in values]}


def fresh(measure):
    """Measures in a new namespace, as in a pod that starts: nobody finds tables of another there."""
    with tempfile.TemporaryDirectory() as directory:
        host = Host(f"nodefwd-bench-{os.getpid()}-new")
        try:
            host.run("sysctl -qw net.ipv4.ip_forward=1")
            time.sleep(SETTLE)
            return measure(host, directory)
        finally:
            host.close()


def until_ready(arguments, environment, own=None):
    """Milliseconds until nodefwd's line is here; what it says itself goes to `own`."""
    def measure(host, _):
        begin, _, line = c.start_nodefwd(host, arguments, environment)
        elapsed = time.perf_counter() - begin
        if own is not None:
            own.append(c.own_figure(line))
        return elapsed * 1000

    return lambda: fresh(measure)


def until_end(command, text=""):
    """Milliseconds until a command that reads this text has ended."""
    def measure(host, directory):
        with open(write(f"{directory}/input", text), "rb") as file:
            begin, process = host.popen(command, stdin=file)
            # Without a time limit, with which Python would only look now and then; the run has one.
            status = process.wait()
            elapsed = time.perf_counter() - begin
        if status:
            raise RuntimeError(f"{command} failed")
        return elapsed * 1000

    return lambda: fresh(measure)


def install_times(count):
    """Milliseconds until the rules for so many forwards are active."""
    wanted = c.ports(count)
    arguments = c.forwards(wanted, DESTINATION)
    own = []
    jobs = {
        # What it costs to start any program at all.
        "true, which does nothing": until_end(["true"]),
        "nodefwd": until_ready(arguments, {}, own),
        "nft -f": until_end(["nft", "-f", "-"], c.rendered(arguments, {})),
    }
    for variant in ("nft", "legacy"):
        name = f"iptables-{variant}"
        jobs[f"{name}-restore"] = until_end([f"{name}-restore"], c.restore(wanted, DESTINATION))
        if count <= 1000:
            jobs[f"{name}, script"] = until_end(["sh"], c.script(variant, wanted, DESTINATION))

    def rounds(name):
        if QUICK or count < 1000:
            return 1 if QUICK else 2 * ROUNDS
        return 1 if name.endswith("script") else ROUNDS

    found = interleaved(jobs, rounds)
    return {**found, "nodefwd, by its own clock": summary(own)}


def source_ranges():
    """Milliseconds until 10,000 ranges of sources are active, against one, and nft with the same set."""
    # Addresses that do not touch each other, and short ones: a variable holds 128 KiB.
    ranges = " ".join(f"{1 + i // 5000}.{i // 500 % 10}.{i // 50 % 10}.{i % 50 * 2}" for i in range(10000))
    arguments = c.forwards(c.ports(1), DESTINATION)
    return interleaved({
        "nodefwd, 1 range": until_ready(arguments, {"SRC_RANGES": "10.90.0.0/16"}),
        "nodefwd, 10,000 ranges": until_ready(arguments, {"SRC_RANGES": ranges}),
        "nft -f, 10,000 ranges": until_end(["nft", "-f", "-"], c.rendered(arguments, {"SRC_RANGES": ranges})),
    }, lambda _: 1 if QUICK else 2 * ROUNDS)


# Makes so many connections that are tracked: datagrams for a neighbour that drops them.
CONNECTIONS = """
import socket, sys
for source in range(20000, 20000 + int(sys.argv[1]) // 50000):
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind(("", source))
    for port in range(1, 50001):
        sender.sendto(b"hello", ("10.91.0.2", port))
"""


def tracked_connections():
    """Milliseconds until nodefwd is ready that looks for stale connections among those of others."""
    def among(count):
        def measure(host, _):
            host.run("ip link add mine type veth peer name other && ip link set mine up && ip link set other up"
                     " && ip address add 10.91.0.1/24 dev mine"
                     " && ip neighbour add 10.91.0.2 lladdr 02:00:00:00:00:02 dev mine nud permanent")
            host.run("nft 'table inet other { chain output {"
                     " type filter hook output priority 0; ct state invalid drop; }; }'")
            host.run([sys.executable, "-c", CONNECTIONS, str(count)])
            found = int(host.run("sysctl -n net.netfilter.nf_conntrack_count"))
            if not count <= found <= count + 100:
                raise RuntimeError(f"{found} connections instead of {count}")
            begin, _, _ = c.start_nodefwd(host, [f"udp/60000={DESTINATION}"], {})
            elapsed = time.perf_counter() - begin
            if int(host.run("sysctl -n net.netfilter.nf_conntrack_count")) < found:
                raise RuntimeError("connections of others are gone")
            return elapsed * 1000

        return lambda: fresh(measure)

    return interleaved({f"nodefwd, {count:,} connections": among(count) for count in (0, 100_000)})


def iperf(hosts, contender, *options):
    """One second of traffic; sender and receiver keep to their cores where there are two."""
    pinned = ["-A", "0,1"] if os.cpu_count() > 1 else []
    command = ["timeout", "20", "iperf3", "-J", "-c", contender.address, "-p", str(contender.port), "-t", "1"]
    return json.loads(hosts.client.run([*command, *pinned, *options]))["end"]


def gigabits(hosts, contender):
    return iperf(hosts, contender)["sum_received"]["bits_per_second"] / 1e9


def small_packets(hosts, contender):
    """Thousands of 64-byte datagrams a second that reach the backend's device. How many of them the
    server then has time to read says nothing about forwarding."""
    def received():
        links = json.loads(hosts.backend.run(f"ip -j -s link show {contender.node.backend_device}"))
        return links[0]["stats64"]["rx"]["packets"]
    before = received()
    seconds = iperf(hosts, contender, "-u", "-b", "0", "-l", "64")["sum"]["seconds"]
    return (received() - before) / seconds / 1000


def connections(hosts, contender):
    """New connections a second, with one request each."""
    url = f"http://{contender.address}:{contender.port}/"
    text = hosts.client.run(["timeout", "20", "ab", "-q", "-r", "-c", "16", "-t", "1", "-n", "1000000", url])
    seconds, complete, failed = (
        float(re.search(rf"{name}: +([0-9.]+)", text)[1])
        for name in ("Time taken for tests", "Complete requests", "Failed requests"))
    return (complete - failed) / seconds


def traffic(hosts, contenders, measure):
    """One figure a round for each contender and number of ports; more for those that are compared
    within a few per cent, and fewer for those that are far away."""
    compared = {name for pair in report.compared(contenders) for name in pair}

    def job(contender):
        def measured():
            found = measure(hosts, contender)
            # Thousands of past connections make nobody's next ones slower.
            contender.node.run("conntrack -F")
            return found
        return measured

    return interleaved({name: job(contender) for name, contender in contenders.items()},
                       lambda name: 3 * ROUNDS if name in compared else (ROUNDS + 1) // 2)


def memory(contenders):
    """KiB that nobody else uses, of each contender's processes, and the program's size."""
    def private(pid):
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return sum(map(int, re.findall(r"Private_\w+: +(\d+)", rollup))) + sum(map(private, children))

    found = {name: private(contender.process.pid) for name, contender in contenders.items() if contender.process}
    return {"nodefwd's file": os.path.getsize(c.NODEFWD) // 1024, **found}


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "date": datetime.date.today().isoformat(),
        "load before": os.getloadavg()[0],
    }


def set_up(hosts, directory):
    """All contenders for traffic, by name and number of ports."""
    found = {}

    def add(name, kind, count, in_kernel):
        node = hosts.node()
        node.directory = f"{directory}/{node.name}"
        os.mkdir(node.directory)
        found[report.key(name, count)] = contender = kind(node, count)
        contender.in_kernel = in_kernel

    add("routing", c.Routing, 1, True)
    for count in PORTS:
        for name, kind in c.KERNEL.items():
            add(name, kind, count, True)
    for count in (PORTS[0], PORTS[-1]):
        add("haproxy", c.Haproxy, count, False)
        add("nginx stream", c.Nginx, count, False)
    add("socat", c.Socat, 1, False)
    return found


def measure(hosts, directory):
    results = {"machine": machine()}
    results["install"] = {str(count): install_times(count) for count in INSTALLED}
    results["ranges"] = source_ranges()
    results["tracked"] = tracked_connections()
    contenders = set_up(hosts, directory)
    results["memory"] = memory(contenders)
    in_kernel = {name: contender for name, contender in contenders.items() if contender.in_kernel}
    iperf_server = hosts.backend.serve(["iperf3", "-s", "-p", str(c.TARGET)], c.TARGET)
    results["tcp"] = traffic(hosts, contenders, gigabits)
    results["udp"] = traffic(hosts, in_kernel, small_packets)
    stop(iperf_server)
    write(f"{directory}/index.html", "hello\n")
    write(f"{directory}/nginx", f"""daemon off; worker_processes 1; pid {directory}/pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; server {{ listen {c.TARGET}; root {directory}; }} }}""")
    hosts.backend.serve(["nginx", "-c", f"{directory}/nginx"], c.TARGET)
    few_and_many = {name: contender for name, contender in contenders.items()
                    if report.count_of(name) in (PORTS[0], PORTS[-1])}
    results["connections"] = traffic(hosts, few_and_many, connections)
    results["machine"]["load after"] = os.getloadavg()[0]
    return results


def main():
    # A signal is an error like any other, so that the namespaces are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by a signal"))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("the whole run took too long"))
    signal.alarm(LIMIT * 15)
    with tempfile.TemporaryDirectory(prefix="nodefwd-bench-") as directory, Hosts() as hosts:
        os.chmod(directory, 0o755)  # nginx reads it as another user
        results = measure(hosts, directory)
    print(report.page(results))
    if not QUICK:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


main()
