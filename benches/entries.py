"""Fills a namespace's conntrack table."""

import socket
import struct


CLIENTS, NODE, BACKEND = "02:00:00:00:00:02", "02:00:00:00:00:01", "10.91.0.2"
PORTS = range(1, 50001)


def _links(host):
    """The network device `node`, whose peer drops what is sent to it, and brings what clients send."""
    host.run(f"ip link add node address {NODE} type veth peer name clients"
             " && sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.node.rp_filter=0"
             " && ip link set node up && ip link set clients up && ip address add 10.91.0.1/24 dev node"
             f" && ip neighbour add {BACKEND} lladdr {CLIENTS} dev node nud permanent"
             f" && ip route add default via {BACKEND}")


def count(host):
    return int(host.run("sysctl -n net.netfilter.nf_conntrack_count"))


def _expect(host, wanted):
    found = count(host)
    if not wanted <= found <= wanted + 100:
        raise RuntimeError(f"{found} conntrack entries instead of {wanted}")


def foreign(host, wanted):
    """Entries that no forward has to do with: datagrams of this host to its neighbour."""
    _links(host)
    host.run("nft 'table inet foreign { chain output {"
             " type filter hook output priority 0; ct state invalid drop; }; }'")
    for first in range(0, wanted, len(PORTS)):
        with host.inside():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            for port in PORTS[:wanted - first]:
                sender.sendto(b"hello", (BACKEND, port))
    _expect(host, wanted)


def forwarded(host, sources, flows, port, backend_port):
    """Entries of clients that another program has forwarded where the instance to come would, too."""
    _links(host)
    host.run("sysctl -qw net.netfilter.nf_conntrack_checksum=0"
             " && nft 'table ip earlier { chain prerouting { type nat hook prerouting priority dstnat;"
             f" tcp dport {port} dnat to {BACKEND}:{backend_port}; }}; }}'")
    with host.inside():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with sender:
        sender.bind(("clients", 0))
        for number in range(flows):
            source, client_port = sources[number % len(sources)], 1024 + number // len(sources)
            sender.send(_syn(source, client_port, "10.91.0.1", port))
    host.run("nft delete table ip earlier")
    _expect(host, flows)


def _syn(source, source_port, destination, port):
    """An Ethernet frame with the first segment of a TCP connection (RFC 791, RFC 9293); its TCP checksum
    is not set."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0) + addresses
    total = sum(struct.unpack("!10H", header))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~total & 0xffff) + header[12:]
    segment = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, 0x02, 65535, 0, 0)
    ethernet = bytes.fromhex((NODE + CLIENTS).replace(":", "")) + b"\x08\x00"
    return ethernet + header + segment
