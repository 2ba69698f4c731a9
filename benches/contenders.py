"""The ways to forward ports, each on a node of its own."""

import os
import re
import subprocess

from hosts import LIMIT, write

NODEFWD = os.environ["NODEFWD_BIN"]
FIRST_PORT = 2000  # 60,000 ports follow
BACKEND_PORT = 8080  # where the last port goes, the only one with traffic


def ports(count):
    """(protocol, port, port of the destination). The last one is the worst place in a list of rules."""
    numbers = range(FIRST_PORT, FIRST_PORT + count)
    return [("tcp", port, BACKEND_PORT if port == numbers[-1] else port) for port in numbers]


def with_udp(wanted):
    """The last port for UDP as well."""
    return [*wanted, ("udp", *wanted[-1][1:])]


def at(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def forwards(wanted, destination):
    """nodefwd's arguments."""
    return [f"{protocol}/{port}={at(destination, to)}" for protocol, port, to in wanted]


def alone(address):
    """The network of this address only."""
    return f"{address}/{128 if ':' in address else 32}"


def klipper(wanted, destination):
    """The four rules a port of klipper-lb's script, as (table, rule)."""
    for protocol, port, to in wanted:
        to_it = f"-d {alone(destination)} -p {protocol} --dport {to}"
        yield "filter", f"FORWARD -s {'::/0' if ':' in destination else '0.0.0.0/0'} {to_it} -j ACCEPT"
        yield "filter", f"FORWARD {to_it} -j DROP"
    yield from original(wanted, destination)


def original(wanted, destination):
    """The two rules a port of the original script."""
    for protocol, port, to in wanted:
        yield "nat", (f"PREROUTING ! -s {alone(destination)} -p {protocol} --dport {port} "
                      f"-j DNAT --to-destination {at(destination, to)}")
        yield "nat", f"POSTROUTING -d {alone(destination)} -p {protocol} -j MASQUERADE"


def script(variant, rules):
    """Adds them one by one."""
    return "set -e\n" + "".join(f"iptables-{variant} -t {table} -A {rule}\n" for table, rule in rules)


def restore(rules):
    """Adds them all at once: the input of iptables-restore."""
    by_table = {}
    for table, rule in rules:
        by_table.setdefault(table, []).append(f"-A {rule}\n")
    return "".join(f"*{table}\n{''.join(lines)}COMMIT\n" for table, lines in by_table.items())


def empty(rules):
    """Removes all rules of their tables: the input of iptables-restore."""
    return "".join(f"*{table}\nCOMMIT\n" for table in dict.fromkeys(table for table, _ in rules))


def rendered(arguments, environment):
    """The ruleset as text, and its table. Without the owner flag: such a table would go with nft."""
    text = subprocess.run([NODEFWD, "render", *arguments], env=environment, check=True, text=True,
                          capture_output=True, timeout=LIMIT).stdout
    return text.replace("\tflags owner\n", ""), re.search(r"^table inet (\S+)", text)[1]


def start_nodefwd(node, arguments, environment):
    """Starts it and reads its log until the line that says ready. Gives the time of the start, the process
    and the line."""
    begin, process = node.popen([NODEFWD, *arguments], env=environment, stderr=subprocess.PIPE, text=True)
    log = []
    for line in process.stderr:
        if line.startswith("ready"):
            return begin, process, line
        log.append(line)
    raise RuntimeError(f"nodefwd did not become ready: {''.join(log)}")


class Routing:
    """No forwarding: the client asks the backend itself. What the machine can do."""

    def __init__(self, node, _count):
        self.node, self.address, self.port, self.process = node, node.destination, BACKEND_PORT, None


class Forwarding:
    def __init__(self, node, count):
        self.node, self.address, self.port = node, node.address, ports(count)[-1][1]
        self.process = None
        self.open(node, ports(count))


class Nodefwd(Forwarding):
    options = ()

    def open(self, node, wanted):
        _, self.process, _ = start_nodefwd(node, [*self.options, *forwards(with_udp(wanted), node.destination)], {})


class Iptables(Forwarding):
    def open(self, node, wanted):
        path = write(f"{node.directory}/rules", restore(klipper(with_udp(wanted), node.destination)))
        node.run(f"{'ip6' if ':' in node.destination else 'ip'}tables-{self.variant}-restore <{path}")


class IptablesNft(Iptables):
    variant = "nft"


class IptablesLegacy(Iptables):
    variant = "legacy"


class Proxy(Forwarding):
    """A program that copies every byte."""

    def open(self, node, wanted):
        words = {"first": wanted[0][1], "last": wanted[-1][1], "directory": node.directory,
                 "backend": f"{node.destination}:{BACKEND_PORT}"}
        write(f"{node.directory}/configuration", self.configuration.format(**words))
        self.process = node.serve(self.command.format(**words).split(), words["last"])


class Haproxy(Proxy):
    command = "haproxy -db -f {directory}/configuration"
    configuration = """global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen forward
    bind :{first}-{last}
    server destination {backend}
"""


class Nginx(Proxy):
    command = "nginx -c {directory}/configuration"
    configuration = """load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; worker_processes auto; pid {directory}/pid; error_log /dev/null;
events {{ worker_connections 4000; }}
stream {{ server {{ listen {first}-{last}; proxy_pass {backend}; }} }}
"""


class Socat(Proxy):
    command = "socat TCP4-LISTEN:{first},fork,reuseaddr,backlog=1024 TCP4:{backend}"
    configuration = ""


IN_KERNEL = {"nodefwd": Nodefwd, "iptables-nft": IptablesNft, "iptables-legacy": IptablesLegacy}
