"""The two ends of a course: a client and a server that note what they saw."""

import errno
import fcntl
import os
import random
import socket
import struct
import termios
import time

TIMEOUT = max(40, 3 * float(os.environ.get("IDLE_FOR", "0")))
# A period that is no multiple of any segment or buffer: an octet that is missing or too many is noticed.
PERIOD = random.Random(7).randbytes(1_000_003)

# States, include/net/tcp_states.h.
FIN_WAIT_2, TIME_WAIT = 5, 6

# Options that Python's socket module does not name; linux/tcp.h.
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_SEND_QUEUE = 19, 20, 21, 2
REPAIR_ON, REPAIR_OFF_WITHOUT_PROBE = 1, -1


def content(octets, start=0):
    """What is sent in either direction."""
    first = start % len(PERIOD)
    times = (first + octets) // len(PERIOD) + 1
    return (PERIOD * times)[first : first + octets]


class End:
    """A connected socket, and `saw`: what this end saw of the connection, to be compared with other ways to serve it."""

    def __init__(self, connected, unread=b""):
        self.socket, self.saw, self.unread = connected, {}, unread
        if connected is not None:
            connected.settimeout(TIMEOUT)

    def note(self, what, action):
        """Notes under `what` how an action ended: "done", or the name of its error."""
        try:
            action()
            self.saw[what] = "done"
        except OSError as error:
            self.saw[what] = name_of(error)
        return self.saw[what] == "done"

    def send(self, octets):
        self.socket.sendall(octets)

    def send_content(self, octets, pieces=1, apart=0.0):
        size = octets // pieces
        for piece in range(pieces):
            self.send(content(size, piece * size))
            time.sleep(apart)

    def receive(self, most=1 << 18):
        if self.unread:
            piece, self.unread = self.unread[:most], self.unread[most:]
            return piece
        return self.socket.recv(most)

    def read(self, octets):
        """Exactly this many."""
        pieces = bytearray()
        while len(pieces) < octets:
            piece = self.receive(octets - len(pieces))
            if not piece:
                raise EOFError(f"end after {len(pieces)} of {octets} octets")
            pieces += piece
        return bytes(pieces)

    def read_until(self, mark, most=1 << 16):
        """Up to and with `mark`; what follows stays unread."""
        pieces = bytearray()
        while mark not in pieces and len(pieces) < most:
            piece = self.receive()
            if not piece:
                raise EOFError(f"end after {len(pieces)} octets")
            pieces += piece
        head, mark, rest = bytes(pieces).partition(mark)
        self.unread = rest + self.unread
        return head + mark

    def read_content(self, what, octets):
        """Notes whether these many octets arrived as they were sent."""
        self.saw[what] = "right" if self.read(octets) == content(octets) else "wrong"

    def read_to_end(self, what, most=1 << 18, pause=0.0, start=0, counts=True):
        """Notes how much of the content from `start` on arrived until the end, whether it was right, and how it ended. Where an
        abort decides how much that is, it is not noted."""
        pieces, end = [], "EOF"
        try:
            while piece := self.receive(most):
                pieces.append(piece)
                if pause:
                    time.sleep(pause)
        except OSError as error:
            end = name_of(error)
        read = b"".join(pieces)
        quality = "right" if read == content(len(read), start) else "wrong"
        self.saw[what] = f"{len(read) if counts else 'some'} octets, {quality}, {end}"
        return read

    def finish(self):
        self.socket.shutdown(socket.SHUT_WR)

    def abort(self):
        # Lingering for no time: close() sends a RST (socket(7)).
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def abort_acknowledged(self):
        """An abort that takes back nothing: what was sent is with the other end."""
        self.saw["acknowledged"] = eventually(5, lambda: self.unacknowledged() == 0)
        self.abort()

    def close(self):
        self.socket.close()

    def option(self, name, value):
        self.socket.setsockopt(socket.IPPROTO_TCP, name, value)

    def keep_alive(self, seconds, times):
        """Probes after this many seconds of silence, as often; unanswered, they end the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.option(socket.TCP_KEEPIDLE, seconds)
        self.option(socket.TCP_KEEPINTVL, seconds)
        self.option(socket.TCP_KEEPCNT, times)

    def unread_in_kernel(self):
        return struct.unpack("i", fcntl.ioctl(self.socket, termios.FIONREAD, bytes(4)))[0]

    def unacknowledged(self):
        return struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)))[0]

    def read_urgent(self):
        """The urgent octet, which is not in the stream."""
        # With a time-out Python would wait for one that is.
        self.socket.settimeout(0)
        try:
            return self.socket.recv(1, socket.MSG_OOB).decode()
        except OSError as error:
            return name_of(error)
        finally:
            self.socket.settimeout(TIMEOUT)

    def next_octet(self):
        """The sequence number of what this end would send next."""
        self.option(TCP_REPAIR, REPAIR_ON)
        self.option(TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)
        number = self.socket.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ)
        self.option(TCP_REPAIR, REPAIR_OFF_WITHOUT_PROBE)
        return number & 0xFFFFFFFF


    def tcp_states(self):
        """The states in which this host's kernel has a socket for this connection."""
        states = set()
        for file in ("/proc/net/tcp", "/proc/net/tcp6"):
            with open(file, encoding="ascii") as lines:
                for line in list(lines)[1:]:
                    _, local, remote, state = line.split()[:4]
                    if self.ports == tuple(int(end.rpartition(":")[2], 16) for end in (local, remote)):
                        states.add(int(state, 16))
        return states


class Client(End):
    """The client's end. `by`: who answered."""

    def __init__(self, address, path, source_port):
        super().__init__(None)
        self.address, self.path, self.source_port = address, path, source_port
        self.by, self.port = None, None
        # What differs from run to run, for a person.
        self.told = {}

    def connect(self, **options):
        """Options of the socket that must be set before: receive_buffer, send_buffer, mss."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(TIMEOUT)
        if "receive_buffer" in options:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receive_buffer"])
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("", self.source_port))
        self.socket.connect((self.address, 80))
        self.option(socket.TCP_NODELAY, 1)
        self.port = self.socket.getsockname()[1]
        self.ports = (self.port, 80)

    def head(self, course, method="GET", version="1.1", fields=()):
        lines = [f"{method} {self.path}{course} HTTP/{version}", "Host: stage", *fields]
        return "\r\n".join([*lines, "", ""]).encode()

    def read_head(self):
        """The head of an answer: its status and its fields."""
        status, *lines = self.read_until(b"\r\n\r\n").decode("latin-1").strip().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.by = fields.get("x-server", self.by)
        return int(status.split()[1]), fields


class Server(End):
    """The server's end, after the head of the request."""

    def __init__(self, connected, name):
        super().__init__(connected)
        self.name = name
        self.port = connected.getpeername()[1]
        self.ports = (80, self.port)
        # What the server says last is not to be held back, and lost in a close.
        self.option(socket.TCP_NODELAY, 1)

    def answer(self, status="200 OK", fields=()):
        lines = [f"HTTP/1.1 {status}", f"X-Server: {self.name}", *fields]
        self.send("\r\n".join([*lines, "", ""]).encode())


def name_of(error):
    if isinstance(error, TimeoutError) and error.errno is None:
        return "nothing happened"
    return errno.errorcode.get(error.errno, str(error))


def eventually(seconds, question):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if question():
            return True
        time.sleep(0.02)
    return False
