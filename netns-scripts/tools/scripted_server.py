"""A server that does what it is told, for scripts of packets (docs/packet-scripts.md).

  scripted_server.py SOCKET PORT

Accepts every connection to PORT, of both families, and leaves it alone. Whoever connects to the UNIX socket SOCKET says
one line and gets one line, as often as it likes:

  had ADDRESS PORT      `yes` if there ever was a connection from there, or `no`
  accept ADDRESS PORT   the connection from there; `ok`, or `none` after two seconds. All the others are about it
  read N                `data HEX` of N octets, or of less after two seconds; `eof`; `error NAME`
  peek                  `nothing`, `data HEX`, `eof` or `error NAME`, at once
  oob                   `data HEX`: the urgent octet
  write N               `ok` when the kernel has taken the first of the next N octets of the stream; the others follow
  shutdown rd|wr|rdwr, close, reset, set NAME VALUE
  state NAME            `state NAME`: what TCP_INFO says, when it says NAME within 0.3 s, or else then
  info NAME VALUE       the same for one of its numbers
"""

import errno
import os
import socket
import struct
import sys
import threading
import time

PATIENCE = 2.0
STATES = "- ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING".split()
# Offsets in struct tcp_info (linux/tcp.h).
NUMBERS = {"options": 5, "ca_state": 1, "retransmits": 2, "unacked": 24, "sacked": 28, "lost": 32, "retrans": 36, "snd_mss": 16, "pmtu": 60}
OCTETS = {"options", "ca_state", "retransmits"}
OPTIONS = {
    "nodelay": (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    "cork": (socket.IPPROTO_TCP, socket.TCP_CORK),
    "quickack": (socket.IPPROTO_TCP, socket.TCP_QUICKACK),
    "keepalive": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    "keepidle": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    "keepintvl": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    "keepcnt": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    "user_timeout": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    "oobinline": (socket.SOL_SOCKET, socket.SO_OOBINLINE),
    "sndbuf": (socket.SOL_SOCKET, socket.SO_SNDBUF),
    "rcvbuf": (socket.SOL_SOCKET, socket.SO_RCVBUF),
}
connections = {}
arrived = threading.Condition()


# drill's src/stream.rs computes the same.
ANSWER = bytes((at ^ (at >> 8) * 31 ^ (at >> 16) * 17) & 0xFF ^ 0xA5 for at in range(1 << 19))


def main():
    path, port = sys.argv[1], int(sys.argv[2])
    for family, every in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((every, port))
        listener.listen(4096)
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
    control = socket.socket(socket.AF_UNIX)
    control.bind(path + ".new")
    control.listen(4096)
    # Whoever waits for the name finds somebody who listens.
    os.rename(path + ".new", path)
    while True:
        asking, _ = control.accept()
        threading.Thread(target=obey, args=(asking,), daemon=True).start()


def accept(listener):
    while True:
        connection, peer = listener.accept()
        with arrived:
            connections[peer[0], peer[1]] = connection
            arrived.notify_all()


def obey(asking):
    told = None
    for line in asking.makefile("r"):
        words = line.split()
        try:
            if words[0] == "accept":
                told = Told(words[1], int(words[2]))
                answer = "ok" if told.connection else "none"
            elif words[0] == "had":
                answer = "yes" if (words[1], int(words[2])) in connections else "no"
            else:
                answer = getattr(told, words[0])(*words[1:])
        except OSError as error:
            answer = "error " + errno.errorcode.get(error.errno, str(error))
        asking.sendall((answer + "\n").encode())
    if told and told.connection:
        told.connection.close()


class Told:
    def __init__(self, address, port):
        with arrived:
            arrived.wait_for(lambda: (address, port) in connections, PATIENCE)
            self.connection = connections.get((address, port))
        self.written = 0

    def read(self, count):
        octets, end = b"", time.monotonic() + PATIENCE
        while len(octets) < int(count):
            self.connection.settimeout(max(end - time.monotonic(), 0.001))
            try:
                piece = self.connection.recv(int(count) - len(octets))
            except TimeoutError:
                break
            if not piece:
                return "data " + octets.hex() if octets else "eof"
            octets += piece
        return "data " + octets.hex()

    def peek(self):
        self.connection.settimeout(0)
        try:
            piece = self.connection.recv(65536, socket.MSG_PEEK)
        except BlockingIOError:
            return "nothing"
        return "data " + piece.hex() if piece else "eof"

    def oob(self):
        return "data " + self.connection.recv(1, socket.MSG_OOB).hex()

    def write(self, count):
        octets = ANSWER[self.written : self.written + int(count)]
        self.written += len(octets)
        self.connection.settimeout(None)
        taken = self.connection.send(octets, socket.MSG_DONTWAIT)
        if taken < len(octets):
            threading.Thread(target=self.push, args=(octets[taken:],), daemon=True).start()
        return "ok"

    def push(self, octets):
        try:
            self.connection.sendall(octets)
        except OSError:
            pass  # The script ended before all was sent.

    def shutdown(self, how):
        self.connection.shutdown({"rd": socket.SHUT_RD, "wr": socket.SHUT_WR, "rdwr": socket.SHUT_RDWR}[how])
        return "ok"

    def close(self):
        self.connection.close()
        return "ok"

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return self.close()

    def set(self, name, value):
        level, option = OPTIONS[name]
        self.connection.setsockopt(level, option, int(value))
        return "ok"

    def state(self, expected):
        return "state " + self.wait(lambda: STATES[self.tcp_info()[0]], expected)

    def info(self, name, expected):
        at = NUMBERS[name]
        one = lambda: str(self.tcp_info()[at] if name in OCTETS else struct.unpack_from("=I", self.tcp_info(), at)[0])
        return f"info {name} {self.wait(one, expected)}"

    def tcp_info(self):
        return self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)

    @staticmethod
    def wait(value, expected):
        end = time.monotonic() + 0.3
        while value() != expected and time.monotonic() < end:
            time.sleep(0.005)
        return value()


main()
