"""Traffic from a client through a forwarded port to a backend, and the memory that each contender takes."""

import json
import os
import pathlib
import re

import aims
import contenders as c
from figures import FILE, key
from hosts import stop, write
from rounds import QUICK, ROUNDS, interleaved

PORTS = (1, 100) if QUICK else (1, 1000, 10000)
# Copying programs open a socket for each port.
PROXY_PORTS = (1, 100) if QUICK else (1, 1000)
CLOSE_ROUNDS = 3 if QUICK else 60


def set_up(hosts, directory):
    """All contenders, by name and number of ports."""
    found = {}

    def add(name, kind, count):
        node = hosts.node()
        node.directory = f"{directory}/{node.name}"
        os.mkdir(node.directory)
        found[key(name, count)] = kind(node, count)

    add("routing", c.Routing, 1)
    for count in PORTS:
        for name, kind in c.IN_KERNEL.items():
            add(name, kind, count)
    for count in PROXY_PORTS:
        add("haproxy", c.Haproxy, count)
        add("nginx stream", c.Nginx, count)
    add("socat", c.Socat, 1)
    return found


def iperf(hosts, contender, *options):
    """Sender and receiver keep to their cores where there are two."""
    pinned = ["-A", "0,1"] if os.cpu_count() > 1 else []
    command = ["timeout", "20", "iperf3", "-J", "-c", contender.address, "-p", str(contender.port)]
    return json.loads(hosts.client.run([*command, *pinned, *options]))["end"]


def gigabits(hosts, contender, _close):
    return iperf(hosts, contender, "-t", "1")["sum_received"]["bits_per_second"] / 1e9


def small_packets(hosts, contender, close):
    """Thousands of 64-byte datagrams a second that reach the backend's device. How many of them the
    server then has time to read says nothing about forwarding."""
    def received():
        links = json.loads(hosts.backend.run(f"ip -j -s link show {contender.node.device}"))
        return links[0]["stats64"]["rx"]["packets"]
    before = received()
    length = ["-k", "40000"] if close else ["-t", "1"]
    seconds = iperf(hosts, contender, "-u", "-b", "0", "-l", "64", *length)["sum"]["seconds"]
    return (received() - before) / seconds / 1000


def connections(hosts, contender, close):
    """New connections a second, with one request each."""
    url = f"http://{contender.address}:{contender.port}/"
    length = ["-n", "4000"] if close else ["-t", "1", "-n", "1000000"]
    text = hosts.client.run(["timeout", "20", "ab", "-q", "-r", "-c", "16", *length, url])
    seconds, complete, failed = (
        float(re.search(rf"{name}: +([0-9.]+)", text)[1])
        for name in ("Time taken for tests", "Complete requests", "Failed requests"))
    return (complete - failed) / seconds


def compared(hosts, contenders, measure, close_rounds):
    """Figures of each contender. Those that are compared within a few per cent are measured in many
    rounds, short ones where `measure` can be short; the rest in few."""
    close = {name for pair in aims.alike(contenders) for name in pair}

    def job(name, contender):
        def measured():
            found = measure(hosts, contender, name in close)
            # Conntrack entries of earlier connections would slow down later ones.
            contender.node.run("conntrack -F")
            return {"rate": found}
        return measured

    return interleaved({name: job(name, contender) for name, contender in contenders.items()},
                       lambda name: close_rounds if name in close else (ROUNDS + 1) // 2)["rate"]


def measure(hosts, directory):
    """Private memory; TCP throughput, packets and new connections."""
    contenders = set_up(hosts, directory)
    results = {"memory": memory(contenders)}
    in_kernel = {name: contender for name, contender in contenders.items() if not isinstance(contender, c.Proxy)}
    iperf_server = hosts.backend.serve(["iperf3", "-s", "-p", str(c.BACKEND_PORT)], c.BACKEND_PORT)
    results["tcp"] = compared(hosts, contenders, gigabits, 3 * ROUNDS)
    results["udp"] = compared(hosts, in_kernel, small_packets, CLOSE_ROUNDS)
    stop(iperf_server)
    serve_http(hosts.backend, directory)
    results["connections"] = compared(hosts, contenders, connections, CLOSE_ROUNDS)
    return results


def serve_http(backend, directory):
    write(f"{directory}/index.html", "hello\n")
    write(f"{directory}/nginx", f"""daemon off; worker_processes 1; pid {directory}/pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; server {{ listen {c.BACKEND_PORT}; root {directory}; }} }}""")
    backend.serve(["nginx", "-c", f"{directory}/nginx"], c.BACKEND_PORT)


def memory(contenders):
    """KiB of each contender's processes that they share with no other process, and the program's size."""
    def private(pid):
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return sum(map(int, re.findall(r"Private_\w+: +(\d+)", rollup))) + sum(map(private, children))

    found = {name: private(contender.process.pid) for name, contender in contenders.items() if contender.process}
    return {FILE: os.path.getsize(c.NODEFWD) // 1024, **found}
