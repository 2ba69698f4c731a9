"""The topology: client - node - backend, three network namespaces, and programs run in them."""

import ctypes
import os
import subprocess
import time

CLIENT, NODE, BACKEND = "client", "node", "backend"
NODE_ADDRESS = "10.90.1.1"
DESTINATION = "10.90.2.2"
LIMIT = 120  # seconds after which anything that should have ended is given up

_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace):
    if _libc.setns(namespace, 0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "setns")


class Hosts:
    """Makes the namespaces; as a context manager, removes them and ends what runs in them."""

    def __init__(self):
        self.id = f"nodefwd-bench-{os.getpid()}"
        self.started = []

    def __enter__(self):
        for host in (CLIENT, NODE, BACKEND):
            sh(f"ip netns add {self.name(host)} && ip -n {self.name(host)} link set lo up")
        self._cable(CLIENT, "10.90.1.2", NODE, NODE_ADDRESS)
        self._cable(NODE, "10.90.2.1", BACKEND, DESTINATION)
        sh(f"ip -n {self.name(CLIENT)} route add default via {NODE_ADDRESS}")
        sh(f"ip -n {self.name(BACKEND)} route add default via 10.90.2.1")
        self.run(NODE, "sysctl -qw net.ipv4.ip_forward=1")
        # Short connections by the thousand need every port, and no memory of the last contender's:
        # a port that waits for stragglers (TIME-WAIT) at the destination holds a new client up.
        for host in (CLIENT, NODE, BACKEND):
            self.run(host, "sysctl -qw net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_max_tw_buckets=0")
        return self

    def __exit__(self, *_):
        for process in self.started:
            stop(process)
        for host in (CLIENT, NODE, BACKEND):
            subprocess.run(["ip", "netns", "delete", self.name(host)], check=False)

    def name(self, host):
        return f"{self.id}-{host}"

    def _cable(self, a, address_a, b, address_b):
        sh(f"ip -n {self.name(a)} link add to-{b} type veth peer name to-{a} netns {self.name(b)}")
        for host, device, address in ((a, f"to-{b}", address_a), (b, f"to-{a}", address_b)):
            sh(f"ip -n {self.name(host)} address add {address}/24 dev {device}")
            sh(f"ip -n {self.name(host)} link set {device} up")

    def popen(self, host, command, **options):
        """Starts a program right in the namespace. This thread goes there and comes back, so that
        neither a helper's start nor a copy of this process is measured with it."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name(host)}", os.O_RDONLY)
        try:
            enter(there)
            return subprocess.Popen(command, shell=isinstance(command, str), **options)
        finally:
            enter(here)
            os.close(there)
            os.close(here)

    def run(self, host, command, **options):
        """Runs a program to its end and gives its output."""
        process = self.popen(host, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             stdin=subprocess.PIPE, **options)
        output, _ = process.communicate(timeout=LIMIT * 5)
        if process.returncode:
            raise RuntimeError(f"{command}: {output[-500:]}")
        return output

    def start(self, host, command):
        """Starts a server that is ended at the latest with the namespaces."""
        process = self.popen(host, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.started.append(process)
        return process

    def wait_for_port(self, host, port):
        deadline = time.monotonic() + 15
        while f":{port} " not in self.run(host, "ss -Hltn"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"nothing listens on port {port}")
            time.sleep(0.02)


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def sh(command):
    subprocess.run(command, shell=True, check=True)
