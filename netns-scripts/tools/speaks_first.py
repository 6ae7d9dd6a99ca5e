"""A server that speaks first, as those of SMTP, SSH and MySQL do, and its client.

  serve NAME PORT
      On both wildcard addresses. Greets with `220 NAME CLIENT-PORT`, then obeys lines:
        GET BYTES   that many octets of a pattern
        PUT BYTES   reads that many, answers with their SHA-256
        REST        reads to the client's FIN, answers with the SHA-256 and ends
        ABORT       resets the connection
        NAME        answers with NAME once more
        QUIT        ends
  ask ADDRESS PORT [--from ADDRESS] [--port PORT] [--wait SECONDS] COMMAND...
      Connects, reads the greeting, sends each command, and prints one line: NAME, then for each command what came of it:
      `ok`, a name, `reset`, `closed` or `wrong`. Commands as above, and
        CLOSE       nothing but the end
        SLEEP S     stays silent
      A connection that cannot be made: `refused` or `timeout`, and a status of 1.
"""

import argparse
import hashlib
import socket
import struct
import sys
import threading
import time

PATTERN = bytes(range(251)) * 4096


def pattern(size):
    while size > 0:
        part = PATTERN[:size]
        yield part
        size -= len(part)


def hash_of_pattern(size):
    digest = hashlib.sha256()
    for part in pattern(size):
        digest.update(part)
    return digest.hexdigest()


class Lines:
    """What a socket says, by lines and by octets."""

    def __init__(self, connection):
        self.connection = connection
        self.rest = b""

    def line(self):
        while b"\n" not in self.rest:
            more = self.connection.recv(65536)
            if not more:
                return None
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode().strip()

    def octets(self, size):
        """So many of them, or all to the end; in pieces."""
        while size is None or size > 0:
            part, self.rest = self.rest, b""
            if size is not None and len(part) > size:
                part, self.rest = part[:size], part[size:]
            if not part:
                part = self.connection.recv(1 << 20 if size is None else min(1 << 20, size))
                if not part:
                    if size is not None:
                        raise EOFError
                    return
            if size is not None:
                size -= len(part)
            yield part

    def hash(self, size):
        digest = hashlib.sha256()
        for part in self.octets(size):
            digest.update(part)
        return digest.hexdigest()


def talk(connection, name, port):
    with connection:
        lines = Lines(connection)
        connection.sendall(f"220 {name} {port}\r\n".encode())
        while (line := lines.line()) is not None:
            command, _, size = line.partition(" ")
            if command == "GET":
                for part in pattern(int(size)):
                    connection.sendall(part)
            elif command == "PUT":
                connection.sendall(lines.hash(int(size)).encode() + b"\n")
            elif command == "REST":
                connection.sendall(lines.hash(None).encode() + b"\n")
                return
            elif command == "ABORT":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            elif command == "NAME":
                connection.sendall(f"{name}\n".encode())
            elif command == "QUIT":
                return


def guarded(connection, name, port):
    try:
        talk(connection, name, port)
    except (OSError, EOFError):
        pass


def serve(name, port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)
    print("listening", flush=True)
    while True:
        connection, client = listener.accept()
        threading.Thread(target=guarded, args=(connection, name, client[1]), daemon=True).start()


def obey(connection, lines, words):
    """One command of the client's; what came of it."""
    command, size = words[0], int(words[1]) if len(words) > 1 and words[0] != "SLEEP" else 0
    if command == "SLEEP":
        time.sleep(float(words[1]))
        return "ok"
    if command == "CLOSE":
        connection.close()
        return "ok"
    connection.sendall(f"{command} {size}\n".encode())
    if command == "GET":
        return "ok" if lines.hash(size) == hash_of_pattern(size) else "wrong"
    if command in ("PUT", "REST"):
        for part in pattern(size):
            connection.sendall(part)
        if command == "REST":
            connection.shutdown(socket.SHUT_WR)
        said = lines.line()
        if command == "REST" and lines.line() is not None:
            return "wrong"
        return "ok" if said == hash_of_pattern(size) else "wrong"
    if command == "NAME":
        return lines.line() or "closed"
    # QUIT or ABORT: whatever ends it.
    return "closed" if lines.line() is None else "wrong"


def ask(arguments):
    results = []
    try:
        family = socket.AF_INET6 if ":" in arguments.address else socket.AF_INET
        connection = socket.socket(family)
        connection.settimeout(arguments.wait)
        if arguments.source or arguments.source_port:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind((arguments.source or "", arguments.source_port))
        connection.connect((arguments.address, arguments.port))
    except ConnectionRefusedError:
        print("refused")
        return 1
    except TimeoutError:
        print("timeout")
        return 1
    port = connection.getsockname()[1]
    try:
        lines = Lines(connection)
        greeting = (lines.line() or "").split()
        if len(greeting) != 3 or greeting[0] != "220" or greeting[2] != str(port):
            print("wrong greeting", greeting, port)
            return 1
        results.append(greeting[1])
        for command in arguments.command:
            results.append(obey(connection, lines, command.split()))
    except (ConnectionResetError, BrokenPipeError):
        results.append("reset")
    except (EOFError, TimeoutError) as error:
        results.append("timeout" if isinstance(error, TimeoutError) else "closed")
    print(" ".join(results))
    return 0


def main():
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["ask"])
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--from", dest="source")
    parser.add_argument("--port", dest="source_port", type=int, default=0)
    parser.add_argument("--wait", type=float, default=20)
    parser.add_argument("command", nargs="*")
    return ask(parser.parse_intermixed_args())


sys.exit(main())
