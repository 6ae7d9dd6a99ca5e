"""Clients whose requests a baton finds at the head of a long queue: they connect and are silent for a while, baton is
stopped, they ask, a burst of segments that belong to no connection follows, and baton runs again.

  backlog.py ADDRESS PATH PROCESS [--clients N] [--silence SECONDS] [--burst SEGMENTS] [--keep SECONDS]

PROCESS is baton's id. Prints one JSON object: for how many milliseconds baton stood still, and of each client its port and who
answered. Then the connections stay open, so that somebody can look at the server's sockets.
"""

import argparse
import json
import os
import signal
import socket
import struct
import time


def checksum(octets):
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def burst(address, count):
    """Acknowledgements from ports of this host that have no connection. Both kernels drop them or their resets."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 80))
        own = probe.getsockname()[0]
    pseudo = socket.inet_pton(family, own) + socket.inet_pton(family, address) + struct.pack("!II", 20, socket.IPPROTO_TCP)
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        for number in range(count):
            tcp = struct.pack("!HHIIBBHHH", 1_000 + number % 4_000, 80, number, number, 5 << 4, 16, 1_000, 0, 0)
            raw.sendto(tcp[:16] + struct.pack("!HH", checksum(pseudo + tcp), 0), (address, 0))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("path")
    parser.add_argument("process", type=int)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--silence", type=float, default=0.1)
    parser.add_argument("--burst", type=int, default=3_000)
    parser.add_argument("--keep", type=float, default=60)
    options = parser.parse_args()

    clients = [socket.create_connection((options.address, 80), timeout=20) for _ in range(options.clients)]
    time.sleep(options.silence)
    began = time.monotonic()
    os.kill(options.process, signal.SIGSTOP)
    try:
        for client in clients:
            client.sendall(f"GET {options.path} HTTP/1.1\r\nHost: stage\r\n\r\n".encode())
        burst(options.address, options.burst)
    finally:
        os.kill(options.process, signal.SIGCONT)
    stood_still = time.monotonic() - began
    answered_by = {}
    for client in clients:
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = client.recv(1 << 16)
            if not piece:
                raise SystemExit("closed early")
            answer += piece
        lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").lower().split("\r\n")[1:]
        answered_by[client.getsockname()[1]] = dict(line.split(": ", 1) for line in lines)["x-server"]
    print(json.dumps({"stood_still": int(stood_still * 1_000), "answered_by": answered_by}), flush=True)
    time.sleep(options.keep)


main()
