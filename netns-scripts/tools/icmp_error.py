"""Sends one ICMP error about a segment from a server to a client, as a router on the way would, or somebody who pretends.

  icmp_error.py KIND SERVER CLIENT CLIENT_PORT SEQ [--mtu MTU]

KIND: `too-big` (fragmentation needed, packet too big) or `refused` (port unreachable). SERVER and CLIENT are addresses, the
server's port is 80; SEQ is the sequence number of the segment in question, as the client sees it. Of TCP, 8 octets are quoted.
"""

import argparse
import socket
import struct


def sum_of(octets):
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


parser = argparse.ArgumentParser()
parser.add_argument("kind", choices=["too-big", "refused"])
parser.add_argument("server")
parser.add_argument("client")
parser.add_argument("port", type=int)
parser.add_argument("seq", type=int)
parser.add_argument("--mtu", type=int, default=0)
options = parser.parse_args()
family = socket.AF_INET6 if ":" in options.server else socket.AF_INET
ends = socket.inet_pton(family, options.server) + socket.inet_pton(family, options.client)
tcp = struct.pack("!HHI", 80, options.port, options.seq % (1 << 32))
if family == socket.AF_INET:
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 1500, 0, 0x4000, 63, 6, 0) + ends
    ip = ip[:10] + struct.pack("!H", sum_of(ip)) + ip[12:]
    kind, code = (3, 4) if options.kind == "too-big" else (3, 3)
    error = struct.pack("!BBHHH", kind, code, 0, 0, options.mtu) + ip + tcp
    error = error[:2] + struct.pack("!H", sum_of(error)) + error[4:]
    raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP)
else:
    ip = struct.pack("!IHBB", 6 << 28, 1460, 6, 63) + ends
    kind, code = (2, 0) if options.kind == "too-big" else (1, 4)
    # The kernel completes the checksum (RFC 3542, section 3.1).
    error = struct.pack("!BBHI", kind, code, 0, options.mtu) + ip + tcp
    raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
raw.sendto(error, (options.server, 0))
