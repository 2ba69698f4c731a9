"""Measures on the running kernel how fast it forwards, with its own packet generator and with TCP. Prints
the results in JSON, after `results: `. For the guest of benches/kernels.sh, which gives the rounds."""

import json
import platform
import sys
import tempfile
import time

import contenders as c
import generator
import traffic
from figures import key
from hosts import Hosts, Node, Pod, run, write
from rounds import interleaved

BEGIN = time.monotonic()
SECONDS = 0.4  # of each measurement with the generator
FAST, ROUTING = "nodefwd, fast path", "routing"


class Routing(c.Routing):
    """No conntrack, either. To go through a node with one interface, packets need a rule of their own."""

    def __init__(self, node, count):
        super().__init__(node, count)
        if isinstance(node, Pod):
            family = "-6" if node.six else "-4"
            node.entrance.run(f"ip {family} rule add iif to-client lookup 100 && "
                              f"ip {family} route add default via {node.address} table 100")


class FastPath(c.Nodefwd):
    def __init__(self, node, count):
        self.options = [f"--fast-path={','.join(node.interfaces)}"]
        super().__init__(node, count)


def beside(others):
    """The fast path beside so many flowtables of others on the same interfaces, which see packets first: of those
    with the same priority the kernel calls the newest one first (nf_hook_entries_grow, net/netfilter/core.c)."""
    def table(number, node):
        return f"""table inet other{number} {{
    flowtable fast {{
        hook ingress priority filter
        devices = {{ {', '.join(node.interfaces)} }}
    }}
    chain forward {{
        type filter hook forward priority filter
        ct mark 0x7777 flow add @fast
    }}
}}
"""

    def make(node, count):
        contender = FastPath(node, count)
        rules = write(f"{node.directory}/others", "".join(table(number, node) for number in range(others)))
        node.run(f"nft -f {rules}")
        return contender

    return make


class Ipvs(c.Forwarding):
    """With masquerading, as kube-proxy has it."""

    def open(self, node, wanted):
        for protocol, port, to in c.with_udp(wanted):
            service = f"--{protocol}-service {c.at(node.address, port)}"
            node.run(f"ipvsadm --add-service {service} --scheduler rr && ipvsadm --add-server {service} "
                     f"--real-server {c.at(node.destination, to)} --masquerading")
        node.run("sysctl -qw net.ipv4.vs.conntrack=1 && "
                 f"iptables-legacy -t nat -A POSTROUTING -d {node.destination} -j MASQUERADE")


# (contender, numbers of ports)
FEW = ((ROUTING, Routing, (1,)), ("nodefwd", c.Nodefwd, (1,)), (FAST, FastPath, (1,)),
       ("iptables-nft", c.IptablesNft, (1,)), ("iptables-legacy", c.IptablesLegacy, (1,)))
MANY = ((ROUTING, Routing, (1,)), ("nodefwd", c.Nodefwd, (1, 1000, 10000)), (FAST, FastPath, (1, 1000, 10000)),
        (f"{FAST} beside 9 others", beside(9), (1,)), (f"{FAST} beside 49 others", beside(49), (1,)),
        ("iptables-nft", c.IptablesNft, (1, 1000)), ("iptables-legacy", c.IptablesLegacy, (1, 1000)),
        ("IPVS", Ipvs, (1,)))
PATHS = {
    "two interfaces, IPv4": (MANY, Node, False),
    "two interfaces, IPv6": (FEW, Node, True),
    "one interface, IPv4": (FEW, Pod, False),
    "one interface, IPv6": (FEW, Pod, True),
}
# With these, TCP is measured as well.
TCP = "two interfaces, IPv4"
TCP_PORTS = (1, 1000, 10000)


def set_up(hosts, directory):
    """All contenders, by path and name, each with an established flow."""
    found = {}
    for path, (contenders, kind, six) in PATHS.items():
        for name, make, counts in contenders:
            for count in counts:
                node = hosts.node(kind, six=six)
                node.directory = tempfile.mkdtemp(dir=directory)
                contender = make(node, count)
                try:
                    generator.open_flow(hosts, contender)
                except OSError as error:
                    raise RuntimeError(f"{path}: {name} does not forward: {error}") from error
                found[path, key(name, count)] = contender
                print(f"{time.monotonic() - BEGIN:.0f} s: {path}: {key(name, count)}", flush=True, file=sys.stderr)
    generator.drop(hosts, [contender.node.device for contender in found.values()])
    return found


def counted(hosts, path, name, contender):
    """How many packets take as long as a measurement is to take; the first of them warm up."""
    rate = [generator.rate(hosts, contender, count) for count in (500, 2000)][-1]
    entries = contender.node.run(f"conntrack -L -p udp {'-f ipv6' if contender.node.six else ''}")
    if (FAST in name) != ("[OFFLOAD]" in entries):
        raise RuntimeError(f"{path}: {name}: conntrack has {entries}")
    return max(1000, int(rate * 1000 * SECONDS))


def packets(hosts, contenders, rounds):
    """Thousands of packets a second, by path and contender."""
    def job(path, name, contender):
        count = counted(hosts, path, name, contender)
        return lambda: {path: generator.rate(hosts, contender, count)}

    jobs = {f"{path}: {name}": job(path, name, contender) for (path, name), contender in contenders.items()}
    found = interleaved(jobs, lambda _: rounds)
    return {path: {name.removeprefix(f"{path}: "): figures for name, figures in found[path].items()}
            for path in PATHS}


def without_offloads(hosts, node):
    """As between machines, every packet goes its way alone."""
    ends = [(hosts.client, node.device), (hosts.backend, node.device)]
    for host, device in ends + [(node, interface) for interface in node.interfaces]:
        host.run(f"ethtool -K {device} tso off gso off gro off")


def tcp(hosts, contenders, directory, rounds):
    """Mbit/s, and new connections a second."""
    def measured(measure):
        def job(contender):
            def once():
                found = measure(hosts, contender, False)
                contender.node.run("conntrack -F")
                return {"rate": found}
            return once
        return interleaved({name: job(contender) for name, contender in contenders.items()}, lambda _: rounds)["rate"]

    for contender in contenders.values():
        without_offloads(hosts, contender.node)
    server = hosts.backend.serve(["iperf3", "-s", "-p", str(c.BACKEND_PORT)], c.BACKEND_PORT)
    throughput = measured(lambda *arguments: 1000 * traffic.gigabits(*arguments))
    traffic.stop(server)
    traffic.serve_http(hosts.backend, directory)
    return {"tcp": throughput, "connections": measured(traffic.connections)}


def main():
    rounds = int(sys.argv[1])
    run("modprobe -a pktgen nf_conntrack")
    with tempfile.TemporaryDirectory(prefix="nodefwd-bench-") as directory, Hosts() as hosts:
        run(f"chmod 755 {directory}")  # nginx reads it as another user
        contenders = set_up(hosts, directory)
        results = {"release": platform.release(), "rounds": rounds, "packets": packets(hosts, contenders, rounds)}
        wanted = [key(name, count) for name, _, counts in MANY for count in counts
                  if count in TCP_PORTS and "beside" not in name and name != "IPVS"]
        chosen = {name: contenders[TCP, name] for name in wanted}
        # Each takes a second and more, where the generator takes less than half of one.
        results |= tcp(hosts, chosen, directory, (rounds + 1) // 2)
        print("results: " + json.dumps(results), flush=True)


main()
