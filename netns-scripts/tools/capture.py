"""Checks a capture of the switch.

  capture.py check FILE    every segment that a server sent to a client lies in the sequence space that the SYN-ACK of its
                           connection promised this client: sequence number, acknowledgement and timestamp. Prints one
                           line per violation (the first ten) and a summary; exits with 1 when there was one.
  capture.py isns FILE     the initial sequence number of every SYN-ACK as the client saw it, as `PORT ISN`
  capture.py again FILE    segments that carry nothing but what was sent before, by connection and direction, as
                           `PORT server|client SECONDS SEGMENTS`, SECONDS being the moment of the first one after the SYN
"""

import socket
import struct
import sys

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
HALF = 1 << 31
ALIASES = ("198.18.", "fd00:ba70::")
# How far a server may be ahead of what the client has been seen to acknowledge. No window here is larger; a sequence
# number of another sequence space passes by chance once in 128 segments, and a connection has more than that.
AHEAD_MAX = 32 << 20
# A peer's clock of timestamps ticks in milliseconds; one of another server starts anywhere in 2^32.
TICKS_AHEAD_MAX = 5_000


def difference(later, earlier):
    """`later - earlier` in sequence space, signed."""
    return (later - earlier + HALF) % (1 << 32) - HALF


def packets(path):
    """Yields (seconds, source, destination, TCP octets, TCP length) of every TCP segment over IPv4 or IPv6."""
    with open(path, "rb") as file:
        magic = file.read(4)
        order = "<" if magic in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
        file.read(20)
        while len(header := file.read(16)) == 16:
            seconds, fraction, captured, _ = struct.unpack(order + "IIII", header)
            frame = file.read(captured)
            ip, now = frame[14:], seconds + fraction / 1e6
            if frame[12:14] == b"\x08\x00" and ip[9] == 6:
                header_length = (ip[0] & 15) * 4
                length = struct.unpack("!H", ip[2:4])[0] - header_length
                source, destination = (socket.inet_ntop(socket.AF_INET, part) for part in (ip[12:16], ip[16:20]))
            elif frame[12:14] == b"\x86\xdd" and ip[6] == 6:
                header_length = 40
                length = struct.unpack("!H", ip[4:6])[0]
                source, destination = (socket.inet_ntop(socket.AF_INET6, part) for part in (ip[8:24], ip[24:40]))
            else:
                continue
            yield now, source, destination, ip[header_length:], length


class Segment:
    def __init__(self, tcp, length):
        self.source_port, self.destination_port, self.seq, self.ack, offset, self.flags = struct.unpack("!HHIIBB", tcp[:14])
        header_length = (offset >> 4) * 4
        self.length = length - header_length
        self.tsval = None
        options = tcp[20:header_length]
        while len(options) > 1 and options[0] != 0:
            if options[0] == 1:
                options = options[1:]
                continue
            if options[0] == 8 and len(options) >= 10:
                self.tsval = struct.unpack("!I", options[2:6])[0]
            options = options[max(options[1], 2):]

    def end(self):
        return self.seq + self.length + bool(self.flags & SYN) + bool(self.flags & FIN)


class Connection:
    def __init__(self, client_isn, synack, now):
        self.client_isn, self.server_isn = client_isn, synack.seq
        self.client_end = (client_isn + 1) % (1 << 32)
        self.acknowledged = synack.seq
        self.tsval, self.tsval_seen = synack.tsval, now

    def from_client(self, segment):
        if difference(segment.end(), self.client_end) > 0 and difference(segment.end(), self.client_end) < AHEAD_MAX:
            self.client_end = segment.end() % (1 << 32)
        if segment.flags & ACK and 0 < difference(segment.ack, self.acknowledged) < AHEAD_MAX * 2:
            self.acknowledged = segment.ack

    def complaint(self, segment, now):
        """What is wrong with a segment from the server; None if nothing is."""
        if segment.flags & SYN and segment.seq != self.server_isn:
            return f"a second SYN-ACK with {segment.seq}"
        if difference(segment.seq, self.server_isn) < 0 and difference(segment.seq, self.acknowledged) < -AHEAD_MAX:
            return "sequence number before the initial one"
        if difference(segment.end(), self.acknowledged) > AHEAD_MAX:
            return "sequence number beyond any window"
        if difference(segment.end(), self.acknowledged) < -AHEAD_MAX:
            return "sequence number far behind"
        if segment.flags & ACK:
            if difference(segment.ack, self.client_end) > 0:
                return "acknowledges what the client has not sent"
            if difference(segment.ack, self.client_end) < -AHEAD_MAX:
                return "acknowledgement far behind"
        if segment.tsval is not None and self.tsval is not None and not segment.flags & RST:
            ticks = difference(segment.tsval, self.tsval)
            if ticks < -1000 or ticks > (now - self.tsval_seen) * 1100 + TICKS_AHEAD_MAX:
                return f"timestamp jumps by {ticks}"
            if ticks > 0:
                self.tsval, self.tsval_seen = segment.tsval, now
        return None


def check(path):
    connections, former, asked = {}, {}, {}
    violations, segments, from_alias, count = [], 0, 0, 0
    for now, source, destination, tcp, length in packets(path):
        segment = Segment(tcp, length)
        if source.startswith(ALIASES) or destination.startswith(ALIASES):
            from_alias += 1
            violations.append((now, source, destination, segment, "alias address"))
            continue
        if segment.destination_port == 80:
            key = (source, segment.source_port, destination)
            if segment.flags & (SYN | ACK) == SYN:
                asked.setdefault(key, set()).add(segment.seq)
            elif key in connections:
                connections[key].from_client(segment)
        elif segment.source_port == 80:
            key = (destination, segment.destination_port, source)
            segments += 1
            current = connections.get(key)
            if segment.flags & (SYN | ACK) == SYN | ACK:
                isn = (segment.ack - 1) % (1 << 32)
                if current is None or (current.client_isn != isn and isn in asked.get(key, ())):
                    if isn not in asked.get(key, ()):
                        violations.append((now, source, destination, segment, "a SYN-ACK nobody asked for"))
                        continue
                    former[key] = (current, now)
                    connections[key] = Connection(isn, segment, now)
                    asked[key] = {isn}
                    count += 1
                    continue
            if current is None:
                if segment.flags & RST and (segment.ack - 1) % (1 << 32) in asked.get(key, ()):
                    continue  # refused
                violations.append((now, source, destination, segment, "no connection"))
                continue
            complaint = current.complaint(segment, now)
            if complaint is not None:
                # The last words of the connection that had this source port before may be late.
                before, until = former.get(key, (None, 0))
                if before is not None and now - until < 2 and before.complaint(segment, now) is None:
                    continue
                violations.append((now, source, destination, segment, complaint))
    for now, source, destination, segment, complaint in violations[:10]:
        print(
            f"{now:.6f} {source}:{segment.source_port} > {destination}:{segment.destination_port} "
            f"flags={segment.flags:#x} seq={segment.seq} ack={segment.ack} length={segment.length} tsval={segment.tsval}: {complaint}"
        )
    print(f"{count} connections, {segments} segments from servers, {len(violations)} violations")
    if segments == 0:
        print("a capture without segments proves nothing")
    return 1 if violations or segments == 0 else 0


def isns(path):
    for _, _, _, tcp, length in packets(path):
        segment = Segment(tcp, length)
        if segment.source_port == 80 and segment.flags & (SYN | ACK) == SYN | ACK:
            print(segment.destination_port, segment.seq)
    return 0


def again(path):
    highest, began, repeated = {}, {}, {}
    for now, _, _, tcp, length in packets(path):
        segment = Segment(tcp, length)
        who = "server" if segment.source_port == 80 else "client"
        port = segment.destination_port if who == "server" else segment.source_port
        if segment.flags & (SYN | ACK) == SYN and segment.end() % (1 << 32) != highest.get((port, "client")):
            highest.pop((port, "server"), None)
            highest.pop((port, "client"), None)
            began[port] = now
        occupies = segment.length or segment.flags & (SYN | FIN)
        if not occupies or segment.flags & RST:
            continue
        known = highest.get((port, who))
        if known is not None and difference(segment.end(), known) <= 0:
            # A keep-alive probe repeats one octet that was acknowledged long ago; here nobody is idle for that long.
            first, count = repeated.get((port, who), (now - began.get(port, now), 0))
            repeated[port, who] = (first, count + 1)
        else:
            highest[port, who] = segment.end() % (1 << 32)
    for (port, who), (first, count) in repeated.items():
        print(f"{port} {who} {first:.3f} {count}")
    return 0


sys.exit({"check": check, "isns": isns, "again": again}[sys.argv[1]](sys.argv[2]))
