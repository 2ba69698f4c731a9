"""The topology: one client and one backend, and between them a node for each way to forward."""

import contextlib
import ctypes
import os
import pathlib
import subprocess
import tempfile
import time

LIMIT = 120  # seconds after which a program that should have ended is an error
SETTLE = 0.2  # seconds in which the kernel frees what the last namespace held

_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace):
    if _libc.setns(namespace, 0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


def stop(process):
    """Ends a process that was started here."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Host:
    """A network namespace."""

    def __init__(self, name):
        self.name = name
        run(f"ip netns add {name}")
        self.processes = []
        self.ip("link set lo up")
        # Thousands of short connections need every port, at once again and without a wait for those
        # before them (TIME-WAIT).
        self.set("net/ipv4/ip_local_port_range", "1024 65535")
        self.set("net/ipv4/tcp_max_tw_buckets", 0)

    def close(self):
        for process in self.processes:
            stop(process)
        subprocess.run(["ip", "netns", "delete", self.name], check=False)

    @contextlib.contextmanager
    def inside(self):
        """This process goes into the namespace and comes back."""
        here = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        enter(there)
        try:
            yield
        finally:
            enter(here)
            os.close(here)
            os.close(there)

    def popen(self, command, **options):
        """Starts a program here, without a helper whose own start would be measured with it. Gives the
        time of the start, and the program."""
        with self.inside():
            begin = time.perf_counter()
            process = subprocess.Popen(command, shell=isinstance(command, str), **options)
        self.processes.append(process)
        return begin, process

    def run(self, command, text=None):
        """Runs a program to its end, reading this text, and gives its output."""
        _, process = self.popen(command, stdin=subprocess.PIPE if text else subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        output, _ = process.communicate(text, timeout=LIMIT)
        if process.returncode:
            raise RuntimeError(f"{command}: {output[-500:]}")
        return output

    def ip(self, *commands):
        """All in one process: on a slow machine its start takes longer than they do."""
        self.run(["ip", "-batch", "-"], "\n".join(commands) + "\n")

    def set(self, name, value):
        """A sysctl."""
        with self.inside():
            write(f"/proc/sys/{name}", str(value))

    def forward(self, six=False):
        self.set("net/ipv6/conf/all/forwarding" if six else "net/ipv4/ip_forward", 1)

    def serve(self, command, port):
        """Starts a server and waits until it listens."""
        _, process = self.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while f":{port} " not in self.run("ss -Hltn"):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"{command}: nothing listens on port {port}")
            time.sleep(0.02)
        return process


def network(number, position, six):
    """What the addresses of a node's network begin with, and the length of its prefix."""
    return (f"fd00:{position}:{number:x}::", 64) if six else (f"10.{position}.{number}.", 24)


def cable(network, here, other, there):
    """ip's commands that lay a cable to another host, whose address is to be set there."""
    return [f"link add {here} type veth peer name {there} netns {other.name}", *address(network, 1, here)]


def address(network, number, link):
    prefix, length = network
    # An IPv6 address is not to be used before its test for duplicates is over.
    options = " nodad" if ":" in prefix else ""
    return [f"address add {prefix}{number}/{length} dev {link}{options}", f"link set {link} up"]


def route(network, gateway):
    prefix, length = network
    return f"route add {prefix}{'' if ':' in prefix else 0}/{length} via {gateway}"


class Node(Host):
    """A host with one way to forward, which no other contender's rules or conntrack entries disturb. Between
    the client and the backend, with an interface to each; of one family."""

    interfaces = ("to-client", "to-backend")

    def __init__(self, name, number, client, backend, six=False):
        super().__init__(name)
        self.six = six
        # Its cables' names at the client and at the backend.
        self.device = f"node{number}"
        self.front, self.own, self.back = (network(number, position, six) for position in (90, 92, 91))
        self.destination = f"{self.back[0]}2"
        self.forward(six)
        self.join(client, backend)

    def join(self, client, backend):
        self.address = f"{self.front[0]}1"
        # The client's packets come in there, at `to-client`.
        self.entrance = self
        self.lay(self, client, backend)

    def lay(self, host, client, backend, *networks):
        """Lays cables between a host and the two, which learn the ways to the other one and to these networks."""
        host.ip(*cable(self.front, "to-client", client, self.device),
                *cable(self.back, "to-backend", backend, self.device))
        for end, near, far in ((client, self.front, self.back), (backend, self.back, self.front)):
            end.ip(*address(near, 2, self.device), *(route(to, f"{near[0]}1") for to in (far, *networks)))


class Pod(Node):
    """A node with one interface, behind a router that keeps no state."""

    interfaces = ("eth0",)

    def join(self, client, backend):
        self.address = f"{self.own[0]}2"
        self.entrance = router = Host(f"{self.name}-router")
        router.forward(self.six)
        self.lay(router, client, backend, self.own)
        router.ip(*cable(self.own, "to-node", self, "eth0"))
        self.ip(*address(self.own, 2, "eth0"), f"route add default via {self.own[0]}1")

    def close(self):
        super().close()
        self.entrance.close()


class Hosts:
    """All of them; as a context manager, ends what runs in them and removes them."""

    def __init__(self):
        self.name = f"nodefwd-bench-{os.getpid()}"
        self.all = []

    def __enter__(self):
        self.client = self._add(Host(f"{self.name}-client"))
        self.backend = self._add(Host(f"{self.name}-backend"))
        return self

    def __exit__(self, *_):
        for host in reversed(self.all):
            host.close()

    def node(self, kind=Node, **options):
        number = len(self.all)
        return self._add(kind(f"{self.name}-{number}", number, self.client, self.backend, **options))

    def bystander(self):
        """A host without traffic, with chains at the hooks of both families, as every machine has that runs a
        firewall or a container. Whoever adds the first chain at a hook of a machine has the kernel change its own
        code, for all contenders alike half a millisecond (static_key_slow_inc in __nf_register_net_hook,
        net/netfilter/core.c)."""
        chains = "".join(f"chain {hook} {{ type {kind} hook {hook} priority 0; ct status dnat accept; }};"
                         for kind, hooks in (("nat", ("prerouting", "postrouting", "output")),
                                             ("filter", ("input", "forward")))
                         for hook in hooks)
        self._add(Host(f"{self.name}-bystander")).run(f"nft 'table inet firewall {{ {chains} }}'")

    def _add(self, host):
        self.all.append(host)
        return host


def fresh(measure):
    """Measures in a new namespace, as in a pod that starts: it has no table and no conntrack entry."""
    with tempfile.TemporaryDirectory() as directory:
        host = Host(f"nodefwd-bench-{os.getpid()}-new")
        try:
            host.run("sysctl -qw net.ipv4.ip_forward=1")
            time.sleep(SETTLE)
            return measure(host, directory)
        finally:
            host.close()


def run(command):
    subprocess.run(command, shell=True, check=True)


def write(path, text):
    pathlib.Path(path).write_text(text, encoding="ascii")
    return str(path)
