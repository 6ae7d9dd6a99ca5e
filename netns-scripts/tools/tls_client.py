"""A TLS client whose hello is as large, and cut as small, as a test wants it. The handshake is OpenSSL's; only how its
octets get into records and segments is decided here. Prints one JSON object about the answer to one request.

  tls_client.py ADDRESS --ca FILE --path PATH [--name NAME] [options]

  --name NAME            server name; without it none is sent and the certificate's names are not looked at
  --hello-octets N       make the hello at least N octets long (by offering long names of protocols)
  --records N            the hello in records of at most N octets
  --segments N           the hello in segments of N octets, each sent when the one before has left
  --pause SECONDS        wait so long between two of them
  --again ADDRESS        then once more, there, with the session of the first time
"""

import argparse
import fcntl
import hashlib
import json
import socket
import ssl
import struct
import sys
import termios
import time

TIMEOUT = 30


class Client:
    def __init__(self, options, context, address, session):
        self.options = options
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=options.name, session=session)
        self.socket = socket.create_connection((address, options.port), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.hello_octets = self.hello_segments = 0

    def unsent(self):
        """Octets that the kernel has queued and not sent yet (SIOCOUTQNSD)."""
        return struct.unpack("i", fcntl.ioctl(self.socket, 0x894B, b"\0" * 4))[0]

    def unacknowledged(self):
        return struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0" * 4))[0]

    def data_segments(self):
        """tcpi_data_segs_out of TCP_INFO."""
        return struct.unpack_from("I", self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 156)[0]

    def send_hello(self, hello):
        if self.options.records:
            # One record came; its content goes into several.
            content = hello[5:]
            assert len(content) == int.from_bytes(hello[3:5], "big")
            step = self.options.records
            pieces = [content[at : at + step] for at in range(0, len(content), step)]
            hello = b"".join(hello[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)
        step = self.options.segments or len(hello)
        for at in range(0, len(hello), step):
            self.socket.sendall(hello[at : at + step])
            # Queued octets would be joined into larger segments.
            while step < len(hello) and self.unsent():
                time.sleep(0.0005)
            if at + step < len(hello):
                time.sleep(self.options.pause)
        deadline = time.monotonic() + TIMEOUT
        while self.unacknowledged() and time.monotonic() < deadline:
            time.sleep(0.001)
        self.hello_octets, self.hello_segments = len(hello), self.data_segments()

    def flush(self):
        octets = self.outgoing.read()
        if not octets:
            return
        if self.hello_octets == 0:
            self.send_hello(octets)
        else:
            self.socket.sendall(octets)

    def until_done(self, step):
        while True:
            try:
                result = step()
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                octets = self.socket.recv(1 << 18)
                if octets:
                    self.incoming.write(octets)
                else:
                    self.incoming.write_eof()

    def ask(self, path):
        self.until_done(self.tls.do_handshake)
        request = f"GET {path} HTTP/1.1\r\nHost: {self.options.name or 'stage'}\r\nConnection: close\r\n\r\n"
        self.until_done(lambda: self.tls.write(request.encode()))
        answer = bytearray()
        while True:
            try:
                octets = self.until_done(lambda: self.tls.read(1 << 18))
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            if not octets:
                break
            answer += octets
        self.socket.close()
        head, body = bytes(answer).split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        certificate = self.tls.getpeercert()
        return {
            "status": int(lines[0].split()[1]),
            "answered_by": headers.get("x-server"),
            "subject": dict(pair for part in certificate["subject"] for pair in part)["commonName"],
            "sha256": hashlib.sha256(body).hexdigest(),
            "alpn": self.tls.selected_alpn_protocol(),
            "version": self.tls.version(),
            "reused": self.tls.session_reused,
            "hello_octets": self.hello_octets,
            "hello_segments": self.hello_segments,
        }


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("address")
    parser.add_argument("--port", type=int, default=443)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--name")
    parser.add_argument("--hello-octets", type=int, default=0)
    parser.add_argument("--records", type=int)
    parser.add_argument("--segments", type=int)
    parser.add_argument("--pause", type=float, default=0)
    parser.add_argument("--again")
    options = parser.parse_args()

    context = ssl.create_default_context(cafile=options.ca)
    context.check_hostname = options.name is not None
    # Names of 200 octets that no server knows, behind one that every server does. The rest has at least 300 octets.
    fillers = [f"{number:0>200}" for number in range(max(0, options.hello_octets - 100) // 201)]
    context.set_alpn_protocols(["http/1.1", *fillers])

    first = Client(options, context, options.address, None)
    answers = [first.ask(options.path)]
    if options.again:
        answers.append(Client(options, context, options.again, first.tls.session).ask(options.path))
    print(json.dumps(answers[-1]))


try:
    main()
except (OSError, ValueError) as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
    sys.exit(1)
