"""Whether a client could tell: what tshark says about a capture taken at the client, by connection.

  oracle.py read CAPTURE REPORT         reads CAPTURE by tshark, writes what there is about each connection to REPORT (JSON)
  oracle.py flags REPORT [PORT...]      tshark's analysis flags, counted, as one line such as
                                        `client.duplicate_ack=2 server.retransmission=3`; empty if there are none
  oracle.py wrong REPORT [PORT...]      what no network explains, one line each: a wrong or unverified checksum, a timestamp of
                                        the server that goes back, a segment tshark cannot read
  oracle.py story REPORT [PORT...]      the SYN, FIN and RST of each connection in their order, with the number of octets that
                                        its sender had sent before, as `client:SYN@0 server:SYN@0 client:FIN@80 ...`
  oracle.py chosen REPORT [PORT...]     a report of these connections alone
  oracle.py beyond REPORT OTHER TIMES AND
                                        the flags of which REPORT has more than TIMES as many as OTHER and AND more
  oracle.py spoil CAPTURE OUT KIND      a copy with one thing wrong, for controls: repeated, tcp-checksum, ip-checksum,
                                        timestamp, zero-window, lost

PORT: only the connections from these ports of the client. A connection's client is whoever is seen first.
"""

import collections
import json
import struct
import subprocess
import sys

# A window update says nothing about the network or the other end: the reader has read.
FLAGS = (
    "retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order", "lost_segment", "ack_lost_segment",
    "duplicate_ack", "zero_window", "zero_window_probe", "zero_window_probe_ack", "window_full", "keep_alive", "keep_alive_ack",
    "reused_ports",
)
FIELDS = (
    "frame.number", "tcp.stream", "tcp.srcport", "tcp.dstport", "tcp.flags", "tcp.seq", "tcp.len", "ip.checksum.status",
    "tcp.checksum.status", "tcp.checksum", "tcp.options.timestamp.tsval", "_ws.malformed", "ip.version", "ipv6.version",
) + tuple(f"tcp.analysis.{flag}" for flag in FLAGS)
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


def read(path):
    connections, latest = {}, {}
    for frame in dissected(path):
        stream = frame["tcp.stream"]
        port = int(frame["tcp.srcport"])
        if stream not in connections:
            connections[stream] = {
                "port": port, "segments": {"client": 0, "server": 0}, "octets": {"client": 0, "server": 0},
                "flags": collections.Counter(), "wrong": [], "story": [],
            }
        connection = connections[stream]
        who = "client" if port == connection["port"] else "server"
        connection["segments"][who] += 1
        wrong = connection["wrong"]

        def complain(text, number=frame["frame.number"], who=who, wrong=wrong):
            wrong.append(f"frame {number}, {who}: {text}")

        for layer in ("ip", "tcp"):
            if layer == "ip" and frame["ipv6.version"]:
                continue
            # One's complement has two zeros; Linux writes the one, tshark expects the other (RFC 1624, section 3).
            if frame[f"{layer}.checksum.status"] != GOOD and (layer, frame["tcp.checksum"]) != ("tcp", "0xffff"):
                complain(f"checksum of {layer} is {({'0': 'wrong'}).get(frame[f'{layer}.checksum.status'], 'unverified')}")
        if frame["_ws.malformed"]:
            complain("malformed")
        for flag in FLAGS:
            if frame[f"tcp.analysis.{flag}"]:
                connection["flags"][f"{who}.{flag}"] += 1
        bits, length = int(frame["tcp.flags"], 16), int(frame["tcp.len"])
        relative = int(frame["tcp.seq"])
        for bit, name in ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST")):
            if bits & bit:
                # The SYN is number 0; the FIN comes after the segment's own payload.
                connection["story"].append(f"{who}:{name}@{0 if bit == SYN else relative - 1 + (length if bit == FIN else 0)}")
        connection["octets"][who] += length
        tsval = frame["tcp.options.timestamp.tsval"]
        if tsval and who == "server":
            tsval = int(tsval)
            known = latest.get(stream)
            if known is not None and (tsval - known + HALF) % (1 << 32) - HALF < 0:
                complain(f"timestamp goes back from {known} to {tsval}")
            else:
                latest[stream] = tsval
    return list(connections.values())


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


def beyond(more, less, times, slack):
    with_it, without = flags_of(more), flags_of(less)
    found = [f"{flag}: {count}, and {without[flag]} without" for flag, count in sorted(with_it.items()) if count > without[flag] * times + slack]
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
    order = "<" if octets[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    frames, at = [], 24
    while at + 16 <= len(octets):
        length = struct.unpack(order + "I", octets[at + 8:at + 12])[0]
        frames.append((octets[at:at + 16], bytearray(octets[at + 16:at + 16 + length])))
        at += 16 + length
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
        # NOP, NOP, timestamps: what Linux puts into every segment after the SYN.
        if frame[tcp + 20:tcp + 23] != b"\x01\x01\x08":
            sys.exit("no timestamps in this capture")
        frame[tcp + 24:tcp + 28] = struct.pack("!I", (struct.unpack("!I", frame[tcp + 24:tcp + 28])[0] - 100_000) % (1 << 32))
        complete(frame)
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
        connections = read(arguments[0])
        if not connections:
            sys.exit("a capture without segments proves nothing")
        with open(arguments[1], "w", encoding="ascii") as file:
            json.dump(connections, file)
        segments = sum(sum(c["segments"].values()) for c in connections)
        print(f"{len(connections)} connections, {segments} segments")
    elif command == "flags":
        print(" ".join(f"{flag}={count}" for flag, count in sorted(flags_of(chosen(arguments[0], arguments[1:])).items())))
    elif command == "wrong":
        for connection in chosen(arguments[0], arguments[1:]):
            for line in connection["wrong"]:
                print(f"port {connection['port']}, {line}")
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
