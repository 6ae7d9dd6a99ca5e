"""A server whose listener has what nginx cannot set: answers every GET with a file, and says who it is.

  listener.py NAME FILE LOG [--multipath] [--md5 PEER] [--tos NUMBER]

Listens on port 80 of every address of both families. --multipath: for Multipath TCP. --md5: segments from PEER must be
signed (RFC 2385), with KEY. --tos: of what it sends. LOG gets a line for every request.
"""

import argparse
import contextlib
import socket
import struct
import threading

IPPROTO_MPTCP, TCP_MD5SIG = 262, 14
KEY = b"between us"


def sign(listener, peer):
    """What comes from and goes to this address is signed. The peer, flags, the key's length, and the key."""
    address = struct.pack("=H2x4s", socket.AF_INET, socket.inet_aton(peer)) if ":" not in peer else \
        struct.pack("=H6x16s4x", socket.AF_INET6, socket.inet_pton(socket.AF_INET6, peer))
    listener.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, struct.pack("=128sBBHi80s", address, 0, 0, len(KEY), 0, KEY))


def serve(client, address, options):
    with client:
        if options.tos is not None:
            family = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if client.family == socket.AF_INET6 else (socket.IPPROTO_IP, socket.IP_TOS)
            with contextlib.suppress(OSError):
                # Of Multipath TCP over IPv6 the kernel does not take it.
                client.setsockopt(*family, options.tos)
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                piece = client.recv(65536)
                if not piece:
                    return
                received += piece
            head, _, received = received.partition(b"\r\n\r\n")
            last = b"connection: close" in head.lower()
            # One write, so that it is cut where segments are full.
            client.sendall(
                f"HTTP/1.1 200 OK\r\nX-Server: {options.name}\r\nContent-Length: {len(options.content)}\r\n\r\n".encode() + options.content)
            with open(options.log, "a") as log:
                log.write(f"{address[0]}:{address[1]} {head.split(maxsplit=2)[1].decode()}\n")
            if last:
                return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("file")
    parser.add_argument("log")
    parser.add_argument("--multipath", action="store_true")
    parser.add_argument("--md5")
    parser.add_argument("--tos", type=int)
    options = parser.parse_args()
    with open(options.file, "rb") as file:
        options.content = file.read()

    def listen(family, address):
        listener = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP if options.multipath else 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if options.md5 and (":" in options.md5) == (family == socket.AF_INET6):
            sign(listener, options.md5)
        listener.bind((address, 80))
        listener.listen(512)
        while True:
            client, peer = listener.accept()
            threading.Thread(target=serve, args=(client, peer, options), daemon=True).start()

    threading.Thread(target=listen, args=(socket.AF_INET6, "::"), daemon=True).start()
    listen(socket.AF_INET, "0.0.0.0")


main()
