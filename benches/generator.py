"""The kernel's packet generator: one flow of UDP datagrams of 64 bytes, from the client to a contender."""

import fcntl
import os
import re
import socket
import struct
import time

from contenders import BACKEND_PORT
from hosts import LIMIT, write

PAYLOAD = 64
SOURCE = 4000  # the port of the flow's client
HEADERS = {False: 14 + 20 + 8, True: 14 + 40 + 8}  # of Ethernet, IPv4 or IPv6, and UDP
PATIENCE = 10  # seconds, in which modules load


def control(file, *commands):
    for command in commands:
        with open(f"/proc/self/net/pktgen/{file}", "w", encoding="ascii") as opened:
            opened.write(command + "\n")


def aim(node, contender):
    """The generator's only device is the one to this node."""
    link = hardware_address(node.entrance, "to-client")
    six, client = ("6", "src6") if node.six else ("", "src_min")
    source = [f"{client} {node.front[0]}2", *([] if node.six else [f"src_max {node.front[0]}2"])]
    remove_devices()
    control("kpktgend_0", f"add_device {node.device}")
    control(node.device, "clone_skb 0", f"pkt_size {HEADERS[node.six] + PAYLOAD}", "delay 0", f"dst_mac {link}",
            f"udp_src_min {SOURCE}", f"udp_src_max {SOURCE}", f"udp_dst_min {contender.port}",
            f"udp_dst_max {contender.port}", f"dst{six} {contender.address}", *source)


def remove_devices():
    """Waits for the generator's thread, which looks for its orders ten times a second and would remove the next device
    with them."""
    control("kpktgend_0", "rem_device_all")
    deadline = time.monotonic() + PATIENCE
    while any(not name.startswith(("kpktgend_", "pgctrl")) for name in os.listdir("/proc/self/net/pktgen")):
        if time.monotonic() > deadline:
            raise RuntimeError("the packet generator keeps its device")
        time.sleep(0.05)


def hardware_address(host, device):
    with host.inside():
        asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asked:
        found = fcntl.ioctl(asked, 0x8927, struct.pack("256s", device.encode()))  # SIOCGIFHWADDR
    return found[18:24].hex(":")


def received(hosts, device):
    with hosts.backend.inside():
        with open("/proc/self/net/dev", encoding="ascii") as opened:
            return int(re.search(rf"{device}: *\d+ +(\d+)", opened.read())[1])


def rate(hosts, contender, count):
    """Thousands of packets a second that arrive at the backend's device, of so many that are sent."""
    node = contender.node
    before = received(hosts, node.device)
    with hosts.client.inside():
        aim(node, contender)
        control(node.device, f"count {count}")
        control("pgctrl", "start")
        sent = result(node.device)
    return sent * (received(hosts, node.device) - before) / count / 1000


def result(device):
    """How many packets it has sent a second. On a busy machine, it is not waited for: it has not begun."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        with open(f"/proc/self/net/pktgen/{device}", encoding="ascii") as opened:
            found = re.search(r"(\d+)pps", opened.read())
        if found:
            return int(found[1])
        time.sleep(0.05)
    raise RuntimeError("the packet generator does not end")


def open_flow(hosts, contender):
    """Requests and replies, after which conntrack takes what the generator sends for a part of an
    established flow."""
    node = contender.node
    family = socket.AF_INET6 if node.six else socket.AF_INET
    with hosts.backend.inside():
        server = socket.socket(family, socket.SOCK_DGRAM)
    with hosts.client.inside():
        client = socket.socket(family, socket.SOCK_DGRAM)
    with server, client:
        server.settimeout(PATIENCE)
        client.settimeout(PATIENCE)
        server.bind(("", BACKEND_PORT))
        client.bind(("", SOURCE))
        client.connect((contender.address, contender.port))
        for _ in range(4):
            client.send(b"request")
            _, peer = server.recvfrom(100)
            server.sendto(b"reply", peer)
            client.recv(100)
    # Not to end before the last round.
    for name in ("udp_timeout", "udp_timeout_stream"):
        node.set(f"net/netfilter/nf_conntrack_{name}", 3600)


def drop(hosts, devices):
    """The backend drops what comes at these devices, so that its answers cost no time."""
    chains = (f"""    chain {device} {{
        type filter hook ingress device {device} priority 0
        meta l4proto udp drop
    }}
""" for device in devices)
    hosts.backend.run(["nft", "-f", "-"], "table netdev sink {\n" + "".join(chains) + "}\n")
