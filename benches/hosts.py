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
        self.run("ip link set lo up")
        # Thousands of short connections need every port, at once again and without a wait for those
        # before them (TIME-WAIT).
        self.run("sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_max_tw_buckets=0")

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

    def run(self, command):
        """Runs a program to its end and gives its output."""
        _, process = self.popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
        output, _ = process.communicate(timeout=LIMIT)
        if process.returncode:
            raise RuntimeError(f"{command}: {output[-500:]}")
        return output

    def serve(self, command, port):
        """Starts a server and waits until it listens."""
        _, process = self.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while f":{port} " not in self.run("ss -Hltn"):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"{command}: nothing listens on port {port}")
            time.sleep(0.02)
        return process


class Node(Host):
    """A host with one way to forward, which no other contender's rules or conntrack entries disturb."""

    def __init__(self, name, number, client, backend):
        super().__init__(name)
        self.address, self.destination = f"10.90.{number}.1", f"10.91.{number}.2"
        self.backend_device = f"node{number}"
        self._cable(client, f"10.90.{number}", mine=1, theirs=2, device=self.backend_device)
        self._cable(backend, f"10.91.{number}", mine=1, theirs=2, device=self.backend_device)
        client.run(f"ip route add 10.91.{number}.0/24 via {self.address}")
        backend.run(f"ip route add 10.90.{number}.0/24 via 10.91.{number}.1")
        self.run("sysctl -qw net.ipv4.ip_forward=1")

    def _cable(self, other, network, mine, theirs, device):
        end = "to-" + other.name.rpartition("-")[2]
        self.run(f"ip link add {end} type veth peer name {device} netns {other.name}")
        for host, link, address in ((self, end, mine), (other, device, theirs)):
            host.run(f"ip address add {network}.{address}/24 dev {link} && ip link set {link} up")


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

    def node(self):
        number = len(self.all)
        return self._add(Node(f"{self.name}-{number}", number, self.client, self.backend))

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
