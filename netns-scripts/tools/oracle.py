"""Whether a client could tell: what tshark says about a capture taken at the client, by connection.

  oracle.py read CAPTURE REPORT         reads CAPTURE by tshark, writes what there is about each connection to REPORT (JSON),
                                        and segments with a wrong checksum to REPORT.wrong.pcap
  oracle.py flags REPORT [PORT...]      tshark's analysis flags, counted, as one line such as
                                        `client.duplicate_ack=2 server.retransmission=3`; empty if there are none
  oracle.py wrong REPORT [PORT...]      what no network explains, one line each: a wrong or unverified checksum, a timestamp of
                                        the server that goes back (unless another segment has overtaken this one),
                                        a segment tshark cannot read
  oracle.py story REPORT [PORT...]      the SYN, FIN and RST of each connection in their order, with the number of octets that
                                        its sender had sent before, as `client:SYN@0 server:SYN@0 client:FIN@80 ...`
  oracle.py mss REPORT [PORT...]        the MSS that the server's SYN-ACK tells; each once
  oracle.py longest REPORT [PORT...]    the payload of the client's longest segment, and of the server's
  oracle.py chosen REPORT [PORT...]     a report of these connections alone
  oracle.py beyond REPORT OTHER TIMES AND
                                        the classes of flags of which REPORT has more than TIMES as many as OTHER and
                                        AND more (see CLASSES for those that may vary more)
  oracle.py classes REPORT [PORT...]    the flags in these classes
  oracle.py spoil CAPTURE OUT KIND      a copy with one thing wrong, for controls: repeated, tcp-checksum, ip-checksum,
                                        timestamp, zero-window, lost, overtaken, repeated-as-older

PORT: only the connections from these ports of the client. A connection's client is whoever is seen first.
"""

import collections
import json
import struct
import subprocess
import sys
import tempfile

# A window update says nothing about the network or the other end: the reader has read.
FLAGS = (
    "retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order", "lost_segment", "ack_lost_segment",
    "duplicate_ack", "zero_window", "zero_window_probe", "zero_window_probe_ack", "window_full", "keep_alive", "keep_alive_ack",
    "reused_ports",
)
FIELDS = (
    "frame.number", "frame.time_epoch", "tcp.stream", "tcp.srcport", "tcp.dstport", "tcp.flags", "tcp.seq", "tcp.ack", "tcp.len",
    "ip.checksum.status", "tcp.checksum.status", "tcp.checksum", "tcp.checksum_calculated", "tcp.options.timestamp.tsval", "_ws.malformed",
    "ip.version", "ipv6.version", "tcp.options.mss_val",
) + tuple(f"tcp.analysis.{flag}" for flag in FLAGS)
# A tail loss probe (RFC 8985, section 7.2): the last segment once more, when its acknowledgement is some milliseconds late on a
# network that takes none. A machine at work, where a process waits for its turn, is enough for that: one of each end and
# connection is counted apart.
PROBE_AFTER = 0.0015
# A segment that another one has overtaken on its way carries the older timestamp, by milliseconds: two processors of one kernel
# may each have a queue of the same connection, and one of them waits for its turn. Such a segment is below what came before it,
# and comes for the first time; what is repeated or new has no older timestamp than what was sent before.
OVERTAKEN_MILLISECONDS = 100
FIN, SYN, RST = 1, 2, 4
GOOD = "1"
HALF = 1 << 31


def dissected(path):
    command = ["tshark", "-n", "-r", path, "-Y", "tcp && !icmp && !icmpv6", "-T", "fields", "-E", "separator=/t", "-E", "occurrence=f"]
    for setting in ("ip.check_checksum:TRUE", "tcp.check_checksum:TRUE", "tcp.desegment_tcp_streams:FALSE", "ip.defragment:FALSE"):
        command += ["-o", setting]
    # What is said over TCP is no matter here, and takes time.
    for protocol in ("http", "tls", "http2", "websocket"):
        command += ["--disable-protocol", protocol]
    for field in FIELDS:
        command += ["-e", field]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as tshark:
        for line in tshark.stdout:
            yield dict(zip(FIELDS, line.rstrip("\n").split("\t")))
    if tshark.returncode not in (0, None):
        sys.exit(f"tshark failed on {path}: status {tshark.returncode}")


def frames_of(octets):
    """Yields each frame of a capture with the header it has there."""
    order = "<" if octets[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at = 24
    while at + 16 <= len(octets):
        length = struct.unpack(order + "I", octets[at + 8:at + 12])[0]
        yield octets[at:at + 16], octets[at + 16:at + 16 + length]
        at += 16 + length


def read(path, wrong_to):
    """What there is about each connection. Segments with a wrong checksum are reported, and then left out as their receiver
    does: their ports and numbers are anybody's."""
    connections, spoilt = survey(path)
    if not spoilt:
        return connections, 0
    wrong = [line for connection in connections for line in connection["wrong"]]
    with open(path, "rb") as file:
        octets = file.read()
    with tempfile.NamedTemporaryFile(suffix=".pcap") as rest, open(wrong_to, "wb") as some:
        rest.write(octets[:24])
        some.write(octets[:24])
        for number, (header, frame) in enumerate(frames_of(octets), 1):
            if number not in spoilt:
                rest.write(header + frame)
            elif some.tell() < 100_000:
                some.write(header + frame)
        rest.flush()
        connections, _ = survey(rest.name)
    if connections:
        # Of which connection a spoilt segment was, its ports may not tell.
        for connection in connections:
            connection["wrong"] = [line for line in wrong if f" of port {connection['port']}, " in line]
        connections[0]["wrong"] += [line for line in wrong if not any(f" of port {c['port']}, " in line for c in connections)]
    return connections, len(spoilt)


def survey(path):
    connections, latest, spoilt = {}, {}, set()
    # What servers have sent: where each segment began, and the highest acknowledgement.
    begun, acknowledged = collections.defaultdict(set), collections.defaultdict(int)
    for frame in dissected(path):
        stream = frame["tcp.stream"]
        port = int(frame["tcp.srcport"])
        if stream not in connections:
            connections[stream] = {
                "port": port, "segments": {"client": 0, "server": 0}, "octets": {"client": 0, "server": 0},
                "longest": {"client": 0, "server": 0},
                "mss": {"client": None, "server": None}, "sent": {}, "probes": [], "flags": collections.Counter(), "wrong": [], "story": [],
            }
        connection = connections[stream]
        who = "client" if port == connection["port"] else "server"
        connection["segments"][who] += 1
        wrong = connection["wrong"]

        def complain(text, frame=frame, connection=connection, who=who, wrong=wrong):
            wrong.append(f"frame {frame['frame.number']} of port {connection['port']}, {who}: {text}")

        if not all(frame[name] for name in ("tcp.seq", "tcp.len", "tcp.flags")):
            complain("its header cannot be read")
            spoilt.add(int(frame["frame.number"]))
            continue
        for layer in ("ip", "tcp"):
            if layer == "ip" and frame["ipv6.version"]:
                continue
            # Of the two zeros of one's complement Linux sends the other one than tshark expects (RFC 1624, section 3).
            zeros = layer == "tcp" and (frame["tcp.checksum"], frame["tcp.checksum_calculated"]) == ("0xffff", "0x0000")
            if frame[f"{layer}.checksum.status"] != GOOD and not zeros:
                complain(f"checksum of {layer} is {({'0': 'wrong'}).get(frame[f'{layer}.checksum.status'], 'unverified')}")
                if frame[f"{layer}.checksum.status"] == "0":
                    spoilt.add(int(frame["frame.number"]))
        if frame["_ws.malformed"]:
            complain("malformed")
        bits, length = int(frame["tcp.flags"], 16), int(frame["tcp.len"])
        relative, now = int(frame["tcp.seq"]), float(frame["frame.time_epoch"])
        ends = relative + length + (1 if bits & FIN else 0)
        highest, sent_at = connection["sent"].get(who, (0, now))
        is_probe = length and ends == highest and now - sent_at >= PROBE_AFTER and who not in connection["probes"]
        if is_probe and frame["tcp.analysis.retransmission"]:
            connection["probes"] += [who, "of server" if who == "client" else "of client"]
        elif frame["tcp.analysis.duplicate_ack"] and f"of {who}" in connection["probes"]:
            # What says that the probe was not needed (D-SACK, RFC 2883).
            connection["probes"].remove(f"of {who}")
        else:
            for flag in FLAGS:
                if frame[f"tcp.analysis.{flag}"]:
                    connection["flags"][f"{who}.{flag}"] += 1
        if ends > relative:
            connection["sent"][who] = (max(ends, highest), now)
        for bit, name in ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST")):
            if bits & bit:
                # The SYN is number 0; the FIN comes after the segment's own payload.
                connection["story"].append(f"{who}:{name}@{0 if bit == SYN else relative - 1 + (length if bit == FIN else 0)}")
        connection["octets"][who] += length
        connection["longest"][who] = max(connection["longest"][who], length)
        if frame["tcp.options.mss_val"]:
            connection["mss"][who] = int(frame["tcp.options.mss_val"])
        tsval = frame["tcp.options.timestamp.tsval"]
        if tsval and who == "server":
            tsval = int(tsval)
            known = latest.get(stream)
            ahead = (tsval - known + HALF) % (1 << 32) - HALF if known is not None else 0
            acknowledges = int(frame["tcp.ack"] or 0)
            is_below = ends <= highest and relative not in begun[stream] if ends > relative else acknowledges < acknowledged[stream]
            if ends > relative:
                begun[stream].add(relative)
            acknowledged[stream] = max(acknowledged[stream], acknowledges)
            if ahead < 0 and not (is_below and -ahead <= OVERTAKEN_MILLISECONDS):
                complain(f"timestamp goes back from {known} to {tsval}")
            elif ahead >= 0:
                latest[stream] = tsval
    return list(connections.values()), spoilt


def chosen(path, ports):
    with open(path, encoding="ascii") as file:
        connections = json.load(file)
    if not ports:
        return connections
    wanted = {int(port) for port in ports}
    missing = wanted - {c["port"] for c in connections}
    if missing:
        sys.exit(f"{path} has no connection from port {', '.join(map(str, sorted(missing)))}")
    return [c for c in connections if c["port"] in wanted]


def flags_of(connections):
    total = collections.Counter()
    for connection in connections:
        total.update(connection["flags"])
    return total


# What of the flags is compared where chance is at work. tshark tells a retransmission from a segment out of order by the time
# between them, and a fast retransmission is counted as a retransmission too. How many duplicate acknowledgements follow a
# loss depends on how much was under way, and whether a window fills on how soon the reader gets its turn: those may vary
# VARIES times as much, and VARY_PERCENT of the segments more.
CLASSES = {
    "repeated": ("retransmission", "out_of_order"),
    "missing": ("lost_segment", "ack_lost_segment"),
    "other": ("keep_alive", "keep_alive_ack", "reused_ports"),
    "duplicate_ack": ("duplicate_ack",),
    "full": ("window_full", "zero_window", "zero_window_probe", "zero_window_probe_ack"),
}
VARYING = ("duplicate_ack", "full")
VARIES, VARY_PERCENT = 4, 3


def classes_of(connections):
    flags = flags_of(connections)
    return {
        f"{who}.{name}": sum(flags[f"{who}.{flag}"] for flag in members)
        for who in ("client", "server") for name, members in CLASSES.items()
    }


def beyond(more, less, times, slack):
    with_it, without = classes_of(more), classes_of(less)
    found = []
    segments = sum(sum(connection["segments"].values()) for connection in more)
    for name, count in with_it.items():
        varies = name.split(".")[1] in VARYING
        allowed = without[name] * times + slack
        if count > (allowed * VARIES + segments * VARY_PERCENT / 100 if varies else allowed):
            found.append(f"{name}: {count}, and {without[name]} without")
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


# --- captures with something wrong --------------------------------------------------------------------------------------------


def sum_of(octets):
    if len(octets) % 2:
        octets += b"\0"
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def spoil(path, out, kind):
    with open(path, "rb") as file:
        octets = file.read()
    frames = [(header, bytearray(frame)) for header, frame in frames_of(octets)]
    four = frames[0][1][12:14] == b"\x08\x00"
    tcp = 14 + (20 if four else 40)

    def payload(frame):
        ends = 14 + struct.unpack("!H", frame[16:18])[0] if four else 54 + struct.unpack("!H", frame[18:20])[0]
        return ends - tcp - (frame[tcp + 12] >> 4) * 4

    def complete(frame):
        frame[tcp + 16:tcp + 18] = b"\0\0"
        addresses = frame[26:34] if four else frame[22:54]
        length = payload(frame) + (frame[tcp + 12] >> 4) * 4
        frame[tcp + 16:tcp + 18] = struct.pack("!H", sum_of(bytes(addresses) + struct.pack("!HH", 6, length) + bytes(frame[tcp:tcp + length])))

    client = struct.unpack("!H", frames[0][1][tcp:tcp + 2])[0]
    of_server = [n for n, (_, f) in enumerate(frames) if struct.unpack("!H", f[tcp + 2:tcp + 4])[0] == client and payload(f) > 0]
    victim = of_server[len(of_server) // 2]
    header, frame = frames[victim]

    def older(frame, milliseconds):
        # NOP, NOP, timestamps: what Linux puts into every segment after the SYN.
        if frame[tcp + 20:tcp + 23] != b"\x01\x01\x08":
            sys.exit("no timestamps in this capture")
        frame[tcp + 24:tcp + 28] = struct.pack("!I", (struct.unpack("!I", frame[tcp + 24:tcp + 28])[0] - milliseconds) % (1 << 32))
        complete(frame)
        return frame

    if kind == "repeated":
        frames.insert(victim + 1, (header, frame))
    elif kind == "lost":
        # Not what the capture missed, but what the client got without: tshark sees the gap.
        del frames[victim]
    elif kind == "tcp-checksum":
        frame[tcp + 16] ^= 1
    elif kind == "ip-checksum":
        frame[24] ^= 1
    elif kind == "timestamp":
        older(frame, 100_000)
    elif kind == "repeated-as-older":
        frames.insert(victim + 1, (header, older(bytearray(frame), 5)))
    elif kind == "overtaken":
        after = next(n for n in of_server if n > victim)
        frames.insert(after + 1, (header, older(bytearray(frame), 5)))
        del frames[victim]
    elif kind == "zero-window":
        frame[tcp + 14:tcp + 16] = b"\0\0"
        complete(frame)
    else:
        sys.exit(f"unknown kind: {kind}")
    with open(out, "wb") as file:
        file.write(octets[:24] + b"".join(header + bytes(frame) for header, frame in frames))


def main():
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "read":
        connections, spoilt = read(arguments[0], f"{arguments[1]}.wrong.pcap")
        if not connections:
            sys.exit("a capture without segments proves nothing")
        with open(arguments[1], "w", encoding="ascii") as file:
            json.dump(connections, file)
        segments = sum(sum(c["segments"].values()) for c in connections)
        print(f"{len(connections)} connections, {segments} segments" + (f", {spoilt} with a wrong checksum" if spoilt else ""))
    elif command == "flags":
        print(" ".join(f"{flag}={count}" for flag, count in sorted(flags_of(chosen(arguments[0], arguments[1:])).items())))
    elif command == "classes":
        print(" ".join(f"{name}={count}" for name, count in sorted(classes_of(chosen(arguments[0], arguments[1:])).items()) if count))
    elif command == "wrong":
        for connection in chosen(arguments[0], arguments[1:]):
            for line in connection["wrong"]:
                print(line)
    elif command == "mss":
        print(" ".join(sorted({str(connection["mss"]["server"]) for connection in chosen(arguments[0], arguments[1:])})))
    elif command == "longest":
        connections = chosen(arguments[0], arguments[1:])
        print(*(max(connection["longest"][who] for connection in connections) for who in ("client", "server")))
    elif command == "story":
        for connection in chosen(arguments[0], arguments[1:]):
            print(" ".join(connection["story"]))
    elif command == "chosen":
        json.dump(chosen(arguments[0], arguments[1:]), sys.stdout)
    elif command == "beyond":
        more, less, times, slack = arguments
        return beyond(chosen(more, []), chosen(less, []), float(times), float(slack))
    elif command == "spoil":
        spoil(*arguments)
    else:
        sys.exit(__doc__)
    return 0


sys.exit(main())
