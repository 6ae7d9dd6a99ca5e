"""A TCP client made by hand, for segments that no kernel would send, and forged segments for somebody else's connection.

  rawtcp.py request ADDRESS PATH --source-port PORT --order ORDER
      One HTTP request. ORDER is `octets` (one octet per segment) or the order in which three segments leave, such as
      `3,1,2`; a number may come twice. Prints one JSON object.
      --mss NUMBER or `none` is what its SYN says; --syn-options HEX and --options HEX are more options in the SYN and in every
      other segment. --from ADDRESS sends from that one. --clad KIND: the segments of the request come in packets with extension headers
      of IPv6 (`hop-by-hop`, `destination`, `routing`, `whole` for a fragment header around all of the packet, `all` for
      four of them), or, of either family, in two `fragments` each.
  rawtcp.py forge ADDRESS --source-port PORT --count N KIND
      KIND: `syn` (random sequence number), `syn-inside` (inside the receiver's window), `reset` (random), `reset-exact`
      (the one that must work). For the last three and the timestamps, a segment of the connection is watched first.
  rawtcp.py repeat ADDRESS PATH --source-port PORT --after SECONDS
      One request in one segment, and after so long once more, whatever the server has said meanwhile.

The kernel of this namespace knows nothing of connections made here and would reset them: the caller drops resets that do
not carry MARK.
"""

import argparse
import hashlib
import json
import os
import random
import socket
import struct
import sys
import time

MARK = 77
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def checksum(octets):
    if len(octets) % 2:
        octets += b"\0"
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Segment:
    """A received segment; numbers as they are on the wire."""

    def __init__(self, packet, source):
        self.source = source
        tcp = packet
        if ":" not in source:
            # Of IPv4 a raw socket gives the header too.
            tcp = packet[(packet[0] & 15) * 4:struct.unpack("!H", packet[2:4])[0]]
        self.source_port, self.destination_port, self.seq, self.ack, offset, self.flags, self.window = struct.unpack("!HHIIBBH", tcp[:16])
        self.payload = tcp[(offset >> 4) * 4:]
        self.tsval = self.tsecr = None
        options = self.options = tcp[20:(offset >> 4) * 4]
        while options and options[0] != 0:
            if options[0] == 1:
                options = options[1:]
                continue
            if options[0] == 8:
                self.tsval, self.tsecr = struct.unpack("!II", options[2:10])
            options = options[max(options[1], 2):]


# Each with the number that announces it (RFC 8200, section 4); the first octet will say what follows.
PADDING = bytes([0, 0, 1, 4, 0, 0, 0, 0])
HOP_BY_HOP, DESTINATION = (0, PADDING), (60, PADDING)
# An experimental type (RFC 4727) with no segments left: to be skipped by whoever does not know it.
ROUTING = (43, bytes([0, 0, 253, 0, 0, 0, 0, 0]))
TCP, FRAGMENT = 6, 44


def fragment(offset, more, identification):
    return FRAGMENT, struct.pack("!BBHI", 0, 0, offset | more, identification)


def packet_v6(source, destination, headers, octets):
    numbers = [number for number, _ in headers] + [TCP]
    chain = b"".join(bytes([following]) + header[1:] for (_, header), following in zip(headers, numbers[1:]))
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return struct.pack("!IHBB", 6 << 28, len(chain) + len(octets), numbers[0], 64) + addresses + chain + octets


def packets(family, source, destination, segment, clad):
    """The packets that carry a segment, clad as the options of the command line say."""
    identification = random.getrandbits(16)
    edge = 40
    if clad is None:
        return []
    if clad == "fragments" and family == socket.AF_INET:
        addresses = socket.inet_aton(source) + socket.inet_aton(destination)
        pieces = [(segment[:edge], 0x2000), (segment[edge:], edge // 8)]
        # The kernel fills in the checksum.
        return [struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(piece), identification, field, 64, 6, 0) + addresses + piece for piece, field in pieces]
    if clad == "fragments":
        pieces = [(segment[:edge], fragment(0, 1, identification)), (segment[edge:], fragment(edge, 0, identification))]
        return [packet_v6(source, destination, [header], piece) for piece, header in pieces]
    whole = fragment(0, 0, identification)
    headers = {
        "hop-by-hop": [HOP_BY_HOP],
        "destination": [DESTINATION],
        "routing": [ROUTING],
        "whole": [whole],
        "all": [HOP_BY_HOP, DESTINATION, ROUTING, whole],
    }
    return [packet_v6(source, destination, headers[clad], segment)]


class Wire:
    def __init__(self, address, source_port, port=80, own_address=None, clad=None):
        self.clad = clad
        self.address, self.port, self.source_port = address, port, source_port
        self.family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(self.family, socket.SOCK_RAW, socket.IPPROTO_TCP)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        if own_address is not None:
            # A link-local one carries its device, as in fe80::1%eth0.
            self.socket.bind(socket.getaddrinfo(own_address, 0, self.family, socket.SOCK_RAW)[0][4])
        self.socket.connect((address, 0))
        self.own_address = self.socket.getsockname()[0].split("%")[0]
        self.by_hand = socket.socket(self.family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.by_hand.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)

    def send(self, seq, ack, flags, payload=b"", options=b"", window=65535):
        offset = (20 + len(options)) // 4 << 4
        seq, ack = seq & 0xFFFFFFFF, ack & 0xFFFFFFFF
        fields = [self.source_port, self.port, seq, ack, offset, flags, window]
        header = struct.pack("!HHIIBBHHH", *fields, 0, 0) + options
        pseudo = socket.inet_pton(self.family, self.own_address) + socket.inet_pton(self.family, self.address)
        # The fields of RFC 8200, section 8.1; with numbers this small those of IPv4 give the same sum.
        pseudo += struct.pack("!II", len(header) + len(payload), 6)
        header = struct.pack("!HHIIBBHHH", *fields, checksum(pseudo + header + payload), 0) + options
        if self.clad is None or not payload:
            self.socket.send(header + payload)
        for packet in packets(self.family, self.own_address, self.address, header + payload, self.clad if payload else None):
            self.by_hand.sendto(packet, (self.address, 0))

    def receive(self, timeout):
        """The next segment of this connection, or None."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                packet, source = self.socket.recvfrom(1 << 17)
                segment = Segment(packet, source[0])
            except (socket.timeout, BlockingIOError):
                return None
            segment.source = segment.source.split("%")[0]
            if (segment.source, segment.source_port, segment.destination_port) == (self.address, self.port, self.source_port):
                return segment
        return None


class Client:
    """Enough of TCP for one request: collects the answer in order, acknowledges, repeats what was not acknowledged."""

    def __init__(self, wire, mss=1460, syn_options=b"", more_options=b""):
        self.wire = wire
        self.mss, self.syn_options, self.more_options = mss, syn_options, more_options
        self.isn = random.getrandbits(32)
        self.clock_offset = random.getrandbits(31)
        self.tsecr = 0
        self.stream = bytearray()
        self.waiting = {}
        self.acknowledged = 0
        self.finished = self.reset = False
        self.outside = self.largest = 0

    def options(self):
        tsval = (int(time.monotonic() * 1000) + self.clock_offset) & 0xFFFFFFFF
        return struct.pack("!BBBBII", 1, 1, 8, 10, tsval, self.tsecr) + self.more_options

    def connect(self):
        syn_options = struct.pack("!BBH", 2, 4, self.mss) if self.mss is not None else b""
        syn_options += struct.pack("!BB", 4, 2) + self.options()[2:12] + struct.pack("!BBBB", 1, 3, 3, 7) + self.syn_options
        syn_options += b"\1" * (-len(syn_options) % 4)
        for _ in range(5):
            self.wire.send(self.isn, 0, SYN, options=syn_options)
            answer = self.wire.receive(1.0)
            if answer is None:
                continue
            if answer.flags & RST:
                raise ConnectionRefusedError
            if answer.flags & (SYN | ACK) == SYN | ACK and answer.ack == (self.isn + 1) & 0xFFFFFFFF:
                self.server_isn, self.syn_ack_options = answer.seq, answer.options
                self.tsecr = answer.tsval or 0
                self.send_acknowledgement()
                return
        raise TimeoutError("no SYN-ACK")

    def send_acknowledgement(self, flags=ACK, offset=None):
        received = len(self.stream) + (1 if self.finished else 0)
        sent = self.acknowledged if offset is None else offset
        self.wire.send(self.isn + 1 + sent, self.server_isn + 1 + received, flags, options=self.options())

    def send_octets(self, request, start, end):
        self.wire.send(
            self.isn + 1 + start, self.server_isn + 1 + len(self.stream), ACK | PSH, request[start:end], self.options()
        )

    def take(self, segment):
        if segment.flags & SYN:
            return
        offset = (segment.seq - self.server_isn - 1) & 0xFFFFFFFF
        if offset > 1 << 28 and offset != 0xFFFFFFFF:
            self.outside += 1
            return
        if segment.flags & RST:
            self.reset = True
            return
        if segment.flags & ACK:
            self.acknowledged = max(self.acknowledged, (segment.ack - self.isn - 1) & 0x7FFFFFFF)
        if segment.tsval is not None:
            self.tsecr = segment.tsval
        self.largest = max(self.largest, len(segment.payload))
        if segment.payload or segment.flags & FIN:
            self.waiting[offset] = (segment.payload, bool(segment.flags & FIN))
            for start in sorted(self.waiting):
                if start > len(self.stream):
                    break
                payload, fin = self.waiting.pop(start)
                self.stream += payload[len(self.stream) - start:]
                self.finished = self.finished or fin
            self.send_acknowledgement()

    def request(self, request, pieces):
        """`pieces` are (start, end) in the order in which they leave."""
        repeated = 0
        for start, end in pieces:
            self.send_octets(request, start, end)
            while segment := self.wire.receive(0.0005):
                self.take(segment)
        deadline = time.monotonic() + 20
        while not (self.finished or self.reset) and time.monotonic() < deadline:
            segment = self.wire.receive(0.3)
            if segment is not None:
                self.take(segment)
            elif self.acknowledged < len(request):
                repeated += 1
                for start, end in pieces:
                    if end > self.acknowledged:
                        self.send_octets(request, start, end)
        if self.finished:
            self.send_acknowledgement(FIN | ACK, offset=len(request))
            while segment := self.wire.receive(0.2):
                self.take(segment)
        return repeated


def request(options):
    text = f"GET {options.path} HTTP/1.1\r\nHost: stage\r\nUser-Agent: by-hand\r\nConnection: close\r\n\r\n".encode()
    if options.order == "octets":
        pieces = [(index, index + 1) for index in range(len(text))]
    else:
        edges = [0, 9, 30, len(text)]
        pieces = [(edges[int(number) - 1], edges[int(number)]) for number in options.order.split(",")]
    wire = Wire(options.address, options.source_port, own_address=options.own_address, clad=options.clad)
    more_options = options.more_options + b"\1" * (-len(options.more_options) % 4)
    client = Client(wire, None if options.mss == "none" else int(options.mss), options.syn_options, more_options)
    client.connect()
    repeated = client.request(text, pieces)
    head, _, body = bytes(client.stream).partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    print(json.dumps({
        "status": lines[0].split()[1] if " " in lines[0] else "",
        "answered_by": headers.get("x-server", "nobody"),
        "sha256": hashlib.sha256(body).hexdigest(),
        "segments": len(pieces),
        "repeated": repeated,
        "finished": client.finished,
        "reset": client.reset,
        "outside_window": client.outside,
        "syn_ack_options": client.syn_ack_options.hex(),
        "largest": client.largest,
    }))


def repeat(options):
    text = f"GET {options.path} HTTP/1.1\r\nHost: stage\r\nUser-Agent: by-hand\r\n\r\n".encode()
    client = Client(Wire(options.address, options.source_port))
    client.connect()
    client.send_octets(text, 0, len(text))
    time.sleep(options.after)
    client.send_octets(text, 0, len(text))
    time.sleep(0.5)


def forge(options):
    wire = Wire(options.address, options.source_port)
    for _ in range(options.count):
        segment = wire.receive(5)
        if segment is None:
            sys.exit("nothing is received on this connection")
        # What the peer acknowledges is what the client sends next.
        following = segment.ack
        tsval = ((segment.tsecr or 0) + 10) & 0xFFFFFFFF
        timestamps = struct.pack("!BBBBII", 1, 1, 8, 10, tsval, segment.tsval or 0)
        syn_options = struct.pack("!BBHBB", 2, 4, 1460, 4, 2) + timestamps[2:] + struct.pack("!BBBB", 1, 3, 3, 7)
        if options.what == "syn":
            wire.send(random.getrandbits(32), 0, SYN, options=syn_options)
        elif options.what == "syn-inside":
            wire.send(following + 100, 0, SYN, options=syn_options)
        elif options.what == "reset":
            wire.send(following + (1 << 31) + random.getrandbits(24), 0, RST)
        elif options.what == "reset-exact":
            wire.send(following, 0, RST)
        time.sleep(0.02)
    print(f"forged {options.count} of {options.what}")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("request")
    command.set_defaults(run=request)
    command.add_argument("address")
    command.add_argument("path")
    command.add_argument("--source-port", type=int, required=True)
    command.add_argument("--order", required=True)
    command.add_argument("--from", dest="own_address")
    command.add_argument("--clad")
    command.add_argument("--mss", default="1460")
    command.add_argument("--syn-options", type=bytes.fromhex, default=b"")
    command.add_argument("--options", dest="more_options", type=bytes.fromhex, default=b"")
    command = commands.add_parser("repeat")
    command.set_defaults(run=repeat)
    command.add_argument("address")
    command.add_argument("path")
    command.add_argument("--source-port", type=int, required=True)
    command.add_argument("--after", type=float, required=True)
    command = commands.add_parser("forge")
    command.set_defaults(run=forge)
    command.add_argument("address")
    command.add_argument("what", choices=["syn", "syn-inside", "reset", "reset-exact"])
    command.add_argument("--source-port", type=int, required=True)
    command.add_argument("--count", type=int, default=1)
    options = parser.parse_args()
    options.run(options)


random.seed(os.urandom(8))
main()
