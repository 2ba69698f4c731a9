"""The ways to forward: each is set up for a number of ports, and taken down."""

import os
import subprocess
import tempfile

from hosts import DESTINATION, LIMIT, NODE, NODE_ADDRESS, stop

NODEFWD = os.environ.get("NODEFWD", "nodefwd")
FIRST_PORT = 20000
IPERF, HTTP = 5201, 8080


def ports(count):
    return range(FIRST_PORT, FIRST_PORT + count)


def forwards(count, target, udp=False):
    """Arguments of nodefwd; UDP too for the last port, if wanted."""
    arguments = [f"tcp/{port}={DESTINATION}:{target}" for port in ports(count)]
    return arguments + ([f"udp/{ports(count)[-1]}={DESTINATION}:{target}"] if udp else [])


def classical(count, target, udp=False):
    """The classical rules for each port, as (table, rule)."""
    wanted = [("tcp", port) for port in ports(count)] + ([("udp", ports(count)[-1])] if udp else [])
    for protocol, port in wanted:
        yield "nat", f"PREROUTING ! -s {DESTINATION}/32 -p {protocol} --dport {port} -j DNAT --to {DESTINATION}:{target}"
        yield "nat", f"POSTROUTING -d {DESTINATION}/32 -p {protocol} -j MASQUERADE"
        yield "filter", f"FORWARD -s 0.0.0.0/0 -d {DESTINATION}/32 -p {protocol} --dport {target} -j ACCEPT"
        yield "filter", f"FORWARD -d {DESTINATION}/32 -p {protocol} --dport {target} -j DROP"


def script(variant, count, target):
    return "set -e\n" + "".join(
        f"iptables-{variant} -t {table} -A {rule}\n" for table, rule in classical(count, target))


def restore(count, target, udp=False):
    """Input of iptables-restore."""
    text = ""
    for wanted in ("nat", "filter"):
        rules = (rule for table, rule in classical(count, target, udp) if table == wanted)
        text += f"*{wanted}\n" + "".join(f"-A {rule}\n" for rule in rules) + "COMMIT\n"
    return text


def rendered(count, target):
    """Our own ruleset as text, without the flag that ends the table with nft."""
    text = subprocess.run([NODEFWD, "render", *forwards(count, target)], check=True, text=True,
                          capture_output=True, env={}).stdout
    return text.replace("\tflags owner\n", "")


def flush_iptables(hosts, variant):
    for table in ("nat", "filter"):
        hosts.run(NODE, f"iptables-{variant} -t {table} -F")


def start_nodefwd(hosts, arguments, env=None):
    """Starts it and waits for its line; gives the process."""
    process = hosts.popen(NODE, [NODEFWD, *arguments], stderr=subprocess.PIPE, text=True, env=env or {})
    for line in process.stderr:
        if line.startswith("ready"):
            return process
    raise RuntimeError("nodefwd did not become ready")


class Routing:
    """No translation at all: what the machine can do."""

    def __init__(self, hosts, count, target):
        self.address, self.port = DESTINATION, target

    def close(self):
        pass


class Forwarding:
    """Reached at the node's address and the last of its ports, the worst one for a list of rules."""

    def __init__(self, hosts, count, target):
        self.hosts, self.address, self.port = hosts, NODE_ADDRESS, ports(count)[-1]
        self.open(count, target)


class Nodefwd(Forwarding):
    def open(self, count, target):
        self.process = start_nodefwd(self.hosts, forwards(count, target, udp=True))

    def close(self):
        stop(self.process)


class Iptables(Forwarding):
    variant = "nft"

    def open(self, count, target):
        with tempfile.TemporaryFile("w+") as rules:
            rules.write(restore(count, target, udp=True))
            rules.seek(0)
            process = self.hosts.popen(NODE, [f"iptables-{self.variant}-restore"], stdin=rules)
            if process.wait(timeout=LIMIT):
                raise RuntimeError("iptables-restore failed")

    def close(self):
        flush_iptables(self.hosts, self.variant)


class IptablesLegacy(Iptables):
    variant = "legacy"


class Proxy(Forwarding):
    """A program that copies every byte."""

    def open(self, count, target):
        directory = tempfile.mkdtemp()
        path = f"{directory}/configuration"
        with open(path, "w", encoding="ascii") as file:
            file.write(self.configuration.format(port=self.port, to=f"{DESTINATION}:{target}", dir=directory))
        words = [word.format(path=path, port=self.port, to=f"{DESTINATION}:{target}") for word in self.command]
        self.process = self.hosts.start(NODE, words)
        self.hosts.wait_for_port(NODE, self.port)

    def close(self):
        stop(self.process)


class Haproxy(Proxy):
    command = ["haproxy", "-db", "-f", "{path}"]
    configuration = """global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen forward
    bind :{port}
    server destination {to}
"""


class Nginx(Proxy):
    command = ["nginx", "-c", "{path}"]
    configuration = """load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; worker_processes 2; pid {dir}/pid; error_log /dev/null;
events {{ worker_connections 4000; }}
stream {{ server {{ listen {port} reuseport; proxy_pass {to}; }} }}
"""


class Socat(Proxy):
    command = ["socat", "TCP4-LISTEN:{port},fork,reuseaddr,backlog=1024", "TCP4:{to}"]
    configuration = ""


KERNEL = {"nodefwd": Nodefwd, "iptables-nft": Iptables, "iptables-legacy": IptablesLegacy}
PROXIES = {"haproxy": Haproxy, "nginx stream": Nginx, "socat": Socat}
