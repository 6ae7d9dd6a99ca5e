"""Checks that servers keep what the handshakes promised their clients, in a capture of the client's wire.

  promises.py check FILE EXPECTATIONS [KERNEL]
                               every segment from a server uses only what SYN and SYN-ACK of its connection agreed on, and
                               all of it. EXPECTATIONS has lines such as `PORT sack=yes timestamps=no scale=7 ecn=no
                               mss=1460`: what was to be agreed with this source port. With KERNEL, a capture of what the
                               owner's kernel sent, windows are compared: the client is offered what the kernel offers.
                               Prints violations (the first ten) and a summary; exits with 1 when there was a violation.
  promises.py ecn FILE PORT... what became of the marks of congestion, one line a port: `marked
                               echoed-by-client reduced-by-server echoed-by-server reduced-by-client`, each yes or no
  promises.py spoil FILE NEW WHAT PORT
                               copies a capture and spoils one segment of a server to this port: WHAT is timestamps (made
                               padding), sack (a block nobody permitted), scale (an option outside the handshake), echo
                               (ECE), accurate (AE), capable (ECT), clock (TSval of the past), window (larger), zero
                               (from there on), length, or answer (the SYN-ACK without timestamps)
"""

import socket
import struct
import sys

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, AE = (1 << bit for bit in range(9))
NOT_CAPABLE, CONGESTED = 0, 3
TICKS_OVERTAKEN_MAX = 10
ETHERNET = 1
ALIASES = ("198.18.", "fd00:ba70:")
MSS, SCALE, SACK_PERMITTED, SACK, TIMESTAMPS = 2, 3, 4, 5, 8
ONLY_IN_SYNS = {MSS, SCALE, SACK_PERMITTED}


def since(later, earlier):
    """`later - earlier` modulo 2^32, signed."""
    return (later - earlier + (1 << 31)) % (1 << 32) - (1 << 31)


def records(path):
    """Yields the file's header, then (record header, frame) of every packet; frames of little-endian captures."""
    with open(path, "rb") as file:
        header = file.read(24)
        if header[:4] != b"\xd4\xc3\xb2\xa1":
            sys.exit(f"{path}: not a capture of this machine")
        yield header
        while len(record := file.read(16)) == 16:
            yield record, file.read(struct.unpack("<I", record[8:12])[0])


class Segment:
    def __init__(self, ip):
        self.family = ip[0] >> 4
        if self.family == 4:
            self.ip_header, self.ecn = (ip[0] & 15) * 4, ip[1] & 3
            length = struct.unpack("!H", ip[2:4])[0] - self.ip_header
            self.source = socket.inet_ntop(socket.AF_INET, ip[12:16])
        else:
            self.ip_header, self.ecn = 40, ip[1] >> 4 & 3
            length = struct.unpack("!H", ip[4:6])[0]
            self.source = socket.inet_ntop(socket.AF_INET6, ip[8:24])
        tcp = ip[self.ip_header:]
        self.source_port, self.destination_port, self.seq, self.ack, bits, self.window = struct.unpack("!HHIIHH", tcp[:16])
        self.flags = bits & 0x1FF
        self.tcp_header = (bits >> 12) * 4
        self.length = length - self.tcp_header
        self.options = {}
        # Where each option begins, counted from the IP header.
        self.places = {}
        at = 20
        while at + 1 < self.tcp_header and tcp[at] != 0:
            if tcp[at] == 1:
                at += 1
                continue
            end = at + max(tcp[at + 1], 2)
            self.options[tcp[at]] = tcp[at + 2:end]
            self.places[tcp[at]] = self.ip_header + at
            at = end
        stamps = self.options.get(TIMESTAMPS)
        self.tsval, self.tsecr = struct.unpack("!II", stamps) if stamps is not None else (None, None)

    def value(self, kind):
        return int.from_bytes(self.options[kind], "big") if kind in self.options else None

    def has(self, flags):
        return self.flags & flags == flags


def link_of(header):
    return struct.unpack("<I", header[20:24])[0]


def ip_of(link, frame):
    """The IP packet with TCP in this frame; None if it is something else."""
    if link == ETHERNET:
        if frame[12:14] not in (b"\x08\x00", b"\x86\xdd"):
            return None
        frame = frame[14:]
    version = frame[0] >> 4
    return frame if (version, frame[9 if version == 4 else 6]) in ((4, 6), (6, 6)) else None


def segments(path):
    """Yields (time, segment)."""
    packets = records(path)
    link = link_of(next(packets))
    for record, frame in packets:
        ip = ip_of(link, frame)
        if ip is not None:
            seconds, fraction = struct.unpack("<II", record[:8])
            yield seconds + fraction / 1e6, Segment(ip)


class Promise:
    """What SYN and SYN-ACK agree on."""

    def __init__(self, syn, syn_ack):
        self.syn_ack = syn_ack
        both = lambda kind: kind in syn.options and kind in syn_ack.options
        self.sack, self.timestamps = both(SACK_PERMITTED), both(TIMESTAMPS)
        self.scale = syn_ack.value(SCALE) if both(SCALE) else None
        self.ecn = syn.has(ECE | CWR) and syn_ack.has(ECE) and not syn_ack.has(CWR)
        self.mss = syn.value(MSS) or (536 if syn.family == 4 else 1220)

    def __str__(self):
        word = lambda flag: "yes" if flag else "no"
        scale = "no" if self.scale is None else self.scale
        return f"sack={word(self.sack)} timestamps={word(self.timestamps)} scale={scale} ecn={word(self.ecn)} mss={self.mss}"


class Connection:
    def __init__(self, syn):
        self.syn, self.promise = syn, None
        self.said = set()
        # Of the server's segments, the one with the newest clock.
        self.newest = None
        self.windows = []

    def from_client(self, segment):
        if segment.flags & SYN:
            self.syn = segment
        if segment.tsval is not None:
            self.said.add(segment.tsval)

    def complaints(self, segment):
        """What is wrong with a segment from the server."""
        if segment.has(SYN | ACK):
            yield from self.syn_ack(segment)
            return
        if self.promise is None:
            if not segment.flags & RST:
                yield "no SYN-ACK before it"
            return
        promise = self.promise
        for kind in segment.options:
            if kind in ONLY_IN_SYNS:
                yield f"option {kind}, which belongs into a handshake"
            elif kind == SACK and not promise.sack:
                yield "SACK blocks nobody permitted"
            elif kind == TIMESTAMPS and not promise.timestamps:
                yield "timestamps nobody agreed on"
            elif kind not in (SACK, TIMESTAMPS):
                yield f"option {kind}, of which nothing was said"
        # RFC 7323, section 3.2: on every segment but RST.
        if promise.timestamps and segment.tsval is None and not segment.flags & RST:
            yield "no timestamps, although they were agreed on"
        if segment.tsval is not None:
            yield from self.clock(segment)
        if segment.flags & AE:
            yield "AE, but nobody agreed on accurate ECN"
        if segment.flags & (ECE | CWR) and not promise.ecn:
            yield "ECE or CWR, but nobody agreed on ECN"
        if segment.ecn != NOT_CAPABLE and not promise.ecn:
            yield "a codepoint of ECN in the IP header, but nobody agreed on ECN"
        if segment.length > promise.mss - (segment.tcp_header - 20):
            yield f"{segment.length} octets, but the client takes {promise.mss}"
        if not segment.flags & RST:
            self.windows.append(segment)

    def syn_ack(self, segment):
        asked = Promise(self.syn, segment)
        for kind in segment.options:
            if kind not in (MSS, SCALE, SACK_PERMITTED, TIMESTAMPS):
                yield f"option {kind} in a SYN-ACK"
            elif kind != MSS and kind not in self.syn.options:
                yield f"the SYN-ACK grants option {kind}, for which the client did not ask"
        if segment.flags & AE:
            yield "AE in a SYN-ACK"
        if segment.has(CWR):
            yield "CWR in a SYN-ACK"
        if self.promise is not None and str(self.promise) != str(asked):
            yield f"a second SYN-ACK that promises {asked} instead of {self.promise}"
        if self.promise is None:
            self.promise = asked
        yield from self.clock(segment)

    def clock(self, segment):
        if segment.tsval is None:
            return
        newest = self.newest
        if newest is not None and since(segment.tsval, newest.tsval) < 0:
            # Two processors of a server may send two segments at once; then the later one can be seen first.
            is_overtaken = since(segment.seq, newest.seq) < 0 or since(segment.ack, newest.ack) < 0
            if not is_overtaken or since(newest.tsval, segment.tsval) > TICKS_OVERTAKEN_MAX:
                yield f"the clock goes back, by {since(newest.tsval, segment.tsval)}"
        else:
            self.newest = segment
        if segment.flags & ACK and segment.tsecr not in self.said:
            yield f"echoes {segment.tsecr}, which the client never said"


def compare_windows(connection, syn_ack, kernel_windows):
    """Yields each window and what is wrong with it, if anything. The client is offered what the kernel offers, rounded down
    to the promised unit; but never nothing instead of something that holds a segment."""
    unit = 1 << (connection.promise.scale or 0)
    scale = (syn_ack.value(SCALE) or 0) if connection.promise.scale is not None else 0
    smallest = min(connection.promise.mss, syn_ack.value(MSS))
    offered = {}
    for segment in kernel_windows:
        offered.setdefault((segment.ack, segment.tsecr), []).append(segment.window << scale)
    for segment in connection.windows:
        candidates = offered.get((segment.ack, segment.tsecr))
        if candidates is None:
            continue
        # The largest the field can say, if the kernel has more.
        right = {min(octets // unit, 0xFFFF) or (1 if octets >= smallest else 0) for octets in candidates}
        if segment.window in right:
            yield segment, None
        else:
            yield segment, f"window {segment.window} in units of {unit}, the kernel offered {sorted(set(candidates))[:5]}"


def expectations(path):
    with open(path, encoding="utf-8") as file:
        return {int(line.split()[0]): line.split()[1:] for line in file if line.strip()}


def check(path, expected_path, kernel_path=None):
    expected = expectations(expected_path)
    connections, violations, count = {}, [], 0
    for now, segment in segments(path):
        if segment.destination_port == 80 and segment.source_port in expected:
            if segment.has(SYN) and segment.source_port not in connections:
                connections[segment.source_port] = Connection(segment)
            if segment.source_port in connections:
                connections[segment.source_port].from_client(segment)
        elif segment.source_port == 80 and segment.destination_port in expected:
            count += 1
            connection = connections.get(segment.destination_port)
            found = connection.complaints(segment) if connection else ["no SYN before it"]
            violations += [(now, segment, complaint) for complaint in found]
    compared = comparable = 0
    if kernel_path is not None:
        syn_acks, sent = {}, {}
        for _, segment in segments(kernel_path):
            if segment.source_port != 80 or not segment.source.startswith(ALIASES):
                continue
            if segment.has(SYN | ACK):
                syn_acks[segment.destination_port] = segment
            elif segment.destination_port in syn_acks and not segment.flags & RST:
                sent.setdefault(segment.destination_port, []).append(segment)
        for port, connection in connections.items():
            if port in sent and connection.promise is not None:
                comparable += len(connection.windows)
                for segment, complaint in compare_windows(connection, syn_acks[port], sent[port]):
                    compared += 1
                    if complaint is not None:
                        violations.append((0, segment, complaint))
        if compared < comparable * 0.9:
            violations.append((0, None, "too few windows could be compared to prove anything"))
    for port, words in expected.items():
        promise = connections[port].promise if port in connections else None
        found = str(promise).split()
        for word in words:
            if word not in found:
                violations.append((0, None, f"port {port}: {word} was expected, agreed was {promise}"))
    for now, segment, complaint in violations[:10]:
        if segment is None:
            print(complaint)
        else:
            print(
                f"{now:.6f} {segment.source} > port {segment.destination_port} flags={segment.flags:#x} seq={segment.seq} "
                f"ack={segment.ack} length={segment.length} window={segment.window}: {complaint}"
            )
    print(f"{len(connections)} connections, {count} segments from servers, {compared} of {comparable} windows compared, {len(violations)} violations")
    silent = [port for port in expected if port not in connections]
    return 1 if violations or silent or count == 0 else 0


def ecn(path, ports):
    names = ("marked", "echoed-by-client", "reduced-by-server", "echoed-by-server", "reduced-by-client")
    found = {int(port): dict.fromkeys(names, False) for port in ports}
    for _, segment in segments(path):
        if segment.flags & SYN:
            continue
        if segment.source_port == 80 and segment.destination_port in found:
            seen = found[segment.destination_port]
            seen["marked"] |= segment.ecn == CONGESTED
            seen["echoed-by-server"] |= segment.has(ECE)
            seen["reduced-by-server"] |= segment.has(CWR)
        elif segment.destination_port == 80 and segment.source_port in found:
            seen = found[segment.source_port]
            seen["echoed-by-client"] |= segment.has(ECE)
            seen["reduced-by-client"] |= segment.has(CWR)
    for seen in found.values():
        print(" ".join(f"{name}={'yes' if value else 'no'}" for name, value in seen.items()))
    return 0


def spoil(path, new_path, what, port):
    packets = records(path)
    header = next(packets)
    link = link_of(header)
    start = 14 if link == ETHERNET else 0
    done, number = False, 0
    with open(new_path, "wb") as file:
        file.write(header)
        for record, frame in packets:
            ip = ip_of(link, frame)
            segment = Segment(ip) if ip is not None else None
            if not segment or segment.source_port != 80 or segment.destination_port != port or segment.flags & RST:
                pass
            elif what == "answer" and segment.has(SYN | ACK):
                frame = bytearray(frame)
                spoil_one(memoryview(frame)[start:], segment, "timestamps")
                done = True
            elif what != "answer" and not segment.flags & SYN:
                number += 1
                if (not done and number > 20) or (done and what == "zero"):
                    frame = bytearray(frame)
                    spoil_one(memoryview(frame)[start:], segment, what)
                    done = True
            file.write(record + bytes(frame))
    if not done:
        sys.exit(f"{path}: nothing to spoil for port {port}")
    return 0


def spoil_one(ip, segment, what):
    tcp = ip[segment.ip_header:]
    stamps = segment.places.get(TIMESTAMPS)
    first = segment.ip_header + 20
    if what == "timestamps":
        ip[stamps:stamps + 10] = bytes([1] * 10)
    elif what == "sack":
        ip[first:first + 12] = bytes([1, 1, SACK, 10]) + struct.pack("!II", segment.ack + 10, segment.ack + 20)
    elif what == "scale":
        ip[first:first + 12] = bytes([SCALE, 3, 7] + [1] * 9)
    elif what == "clock":
        ip[stamps + 2:stamps + 6] = struct.pack("!I", (segment.tsval - 100_000) % (1 << 32))
    elif what == "echo":
        tcp[13] |= ECE
    elif what == "accurate":
        tcp[12] |= 1
    elif what == "capable":
        ip[1] |= 2 if segment.family == 4 else 2 << 4
    elif what == "window":
        tcp[14:16] = struct.pack("!H", min(segment.window + 1, 0xFFFF))
    elif what == "zero":
        tcp[14:16] = bytes(2)
    elif what == "length":
        place = slice(2, 4) if segment.family == 4 else slice(4, 6)
        ip[place] = struct.pack("!H", struct.unpack("!H", ip[place])[0] + 9_000)
    else:
        sys.exit(__doc__)


def main():
    commands = {"check": check, "ecn": lambda path, *ports: ecn(path, ports), "spoil": lambda *rest: spoil(*rest[:3], int(rest[3]))}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))


main()
