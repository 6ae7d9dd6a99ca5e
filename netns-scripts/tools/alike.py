"""One course of a client, run against several servers at once by the same code, and what the wire says about each.

  alike.py run COURSES LOG...          runs every course of the file COURSES (`-`: standard input) at the same time and prints
                                       one line each: CASE WAY RESULT, RESULT being `whole`, or what went wrong. LOGs are the
                                       servers' access logs: each request must have reached exactly one of them, once.
  alike.py cookie ADDRESS              asks for a cookie of TCP Fast Open, which the kernel keeps for later connections
  alike.py compare REPORT COURSES [CASE/WAY:KIND[~N]...] [--beyond] [--few N KIND...]
                                       compares, case by case, what the client's wire saw of each way with what it saw of
                                       the way `bare`, in a report of tools/oracle.py. Prints a line per difference, and exits
                                       with 1 when there is one that is not named as CASE/WAY:KIND
                                       (~N: and is one of at most N more or less);
                                       CASE/WAY may be a pattern. In N of the courses there may be one more or less of
                                       the KINDs. --beyond: only what is more counts

A course is a line `CASE WAY ADDRESS PORT SERVER PATH [NAME=VALUE...]`: WAY is `bare` (no baton there), `local` or `handed-off`;
PORT the client's own; SERVER who must answer. The answers' hashes are in $BODY_HASHES, as `PATH'S-LAST-PART=SHA256,...`. Names:
    requests=N       over one connection; before each but the first the client waits
    pause=SECONDS    so long
    closes=WHO       client or server; who closes first
    upload=OCTETS    each request is a POST of so many, answered with their hash
    start=SECONDS    after the beginning
    again=N          N connections after each other from the same port
    option=NAME      plain (default), fast-open, multipath, md5
    from=ADDRESS     of the client
    tos=NUMBER       of what the client sends
    within=SECONDS   it must be over
"""

import argparse
import collections
import fnmatch
import hashlib
import json
import os
import random
import socket
import struct
import sys
import threading
import time

TIMEOUT = float(os.environ.get("ALIKE_TIMEOUT", "20"))
IPPROTO_MPTCP, MSG_FASTOPEN, TCP_MD5SIG = 262, 0x20000000, 14
# As in tools/listener.py.
KEY = b"between us"


class Wrong(Exception):
    pass


class Course:
    def __init__(self, line):
        words = line.split()
        self.case, self.way, self.address, port, self.server, self.path = words[:6]
        self.port = int(port)
        values = dict(word.split("=", 1) for word in words[6:])
        self.requests, self.again = int(values.pop("requests", 1)), int(values.pop("again", 1))
        self.pause, self.start = float(values.pop("pause", 0)), float(values.pop("start", 0))
        self.upload = int(values.pop("upload", 0))
        self.closes, self.option = values.pop("closes", "server"), values.pop("option", "plain")
        self.within = float(values.pop("within", TIMEOUT))
        self.source, self.tos = values.pop("from", ""), int(values.pop("tos", 0))
        if values:
            sys.exit(f"unknown: {values}")
        self.result = "not run"


def courses_of(path):
    with open(0 if path == "-" else path) as file:
        return [Course(line) for line in file if line.strip()]


def open_socket(course):
    family = socket.AF_INET6 if ":" in course.address else socket.AF_INET
    protocol = IPPROTO_MPTCP if course.option == "multipath" else 0
    client = socket.socket(family, socket.SOCK_STREAM, protocol)
    client.settimeout(TIMEOUT)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if protocol == 0:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if course.option == "md5":
        address = struct.pack("=H2x4s", family, socket.inet_aton(course.address)) if family == socket.AF_INET else \
            struct.pack("=H6x16s4x", family, socket.inet_pton(family, course.address))
        client.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, struct.pack("=128sBBHi80s", address, 0, 0, len(KEY), 0, KEY))
    if course.tos:
        level = (socket.IPPROTO_IP, socket.IP_TOS) if family == socket.AF_INET else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
        client.setsockopt(*level, course.tos)
    client.bind((course.source, course.port))
    return client


def connection(course, hashes):
    client = open_socket(course)
    try:
        connected = False
        if course.option != "fast-open":
            client.connect((course.address, 80))
            connected = True
        for number in range(course.requests):
            if number:
                time.sleep(course.pause)
            last = number + 1 == course.requests and course.closes == "server"
            body = random.Random(f"{course.port} {course.address}").randbytes(course.upload) if course.upload else b""
            head = f"{'POST' if body else 'GET'} {course.path} HTTP/1.1\r\nHost: stage\r\nUser-Agent: alike\r\n"
            head += (f"Content-Length: {len(body)}\r\n" if body else "") + ("Connection: close\r\n" if last else "") + "\r\n"
            if connected:
                client.sendall(head.encode() + body)
            else:
                # Data in the SYN, if the kernel has a cookie; a request for one, if not.
                client.settimeout(None)
                client.sendto(head.encode(), MSG_FASTOPEN, (course.address, 80))
                client.settimeout(TIMEOUT)
                connected = True
                client.sendall(body)
            read_answer(course, client, hashlib.sha256(body).hexdigest() if body else hashes[course.path.rsplit("/", 1)[1]], bool(body))
        if course.closes == "server":
            if client.recv(1):
                raise Wrong("octets after the answer")
    finally:
        client.close()


def read_answer(course, client, expected, is_hash):
    received = b""
    while b"\r\n\r\n" not in received:
        piece = client.recv(1 << 18)
        if not piece:
            raise Wrong("closed before the answer")
        received += piece
    head, _, first = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    pieces, length, left = [first], int(fields["content-length"]), int(fields["content-length"]) - len(first)
    while left > 0:
        piece = client.recv(min(left, 1 << 18))
        if not piece:
            raise Wrong(f"closed {left} of {length} octets too early")
        pieces.append(piece)
        left -= len(piece)
    body = b"".join(pieces)
    if lines[0].split()[1] != "200":
        raise Wrong(lines[0])
    if fields.get("x-server") != course.server:
        raise Wrong(f"{fields.get('x-server')} instead of {course.server}")
    if (body[:64].decode("latin-1") if is_hash else hashlib.sha256(body).hexdigest()) != expected:
        raise Wrong("another body")


def run_one(course, hashes, began):
    time.sleep(max(0, began + course.start - time.monotonic()))
    started = time.monotonic()
    try:
        for _ in range(course.again):
            deadline = time.monotonic() + TIMEOUT
            while True:
                try:
                    connection(course, hashes)
                    break
                except OSError as error:
                    # Until the server has acknowledged the client's FIN the four-tuple is taken, and the kernel says so.
                    if isinstance(error, TimeoutError) or error.errno not in (98, 99) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
        took = time.monotonic() - started
        course.result = "whole" if took <= course.within else f"took_{took:.1f}_seconds"
    except (OSError, ValueError, KeyError, Wrong) as error:
        course.result = f"{type(error).__name__}: {error}".replace(" ", "_")


def cookie(options):
    """Asks a server for a cookie of TCP Fast Open; the kernel keeps it."""
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.sendto(b"GET / HTTP/1.0\r\n\r\n", MSG_FASTOPEN, (options.address, 80))
        client.recv(1)


def lines_in(path):
    with open(path) as file:
        return file.read().splitlines()


def run(options):
    courses = courses_of(options.courses)
    hashes = dict(pair.split("=") for pair in os.environ["BODY_HASHES"].split(",") if pair)
    before = {log: len(lines_in(log)) for log in options.logs}
    began = time.monotonic()
    threads = [threading.Thread(target=run_one, args=(course, hashes, began)) for course in courses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(0.2)
    reached = collections.Counter()
    for log in options.logs:
        for line in lines_in(log)[before[log]:]:
            reached[int(line.split()[0].rsplit(":", 1)[1])] += 1
    asked = collections.Counter()
    for course in courses:
        asked[course.port] += course.requests * course.again
    for course in courses:
        if course.result == "whole" and reached[course.port] != asked[course.port]:
            course.result = f"requests_that_reached_an_application:_{reached[course.port]}_of_{asked[course.port]}"
        print(course.case, course.way, course.result)
    return any(course.result != "whole" for course in courses)


# --- what the wire saw --------------------------------------------------------------------------------------------


def seen_of(report, port):
    """What the client's wire saw of the connections from this port: tshark's flags, and how they began and ended."""
    seen = collections.Counter()
    connections = [connection for connection in report if connection["port"] == port]
    for connection in connections:
        seen.update(connection["flags"])
        seen.update(word.split("@")[0] for word in connection["story"])
        # A network that delivers what is old makes a clock go back; nothing makes a checksum wrong.
        backwards = sum("timestamp goes back" in line for line in connection["wrong"])
        seen["timestamps of the server that go back"] += bool(backwards)
        seen["wrong"] += len(connection["wrong"]) - backwards
    seen["connections"] = len(connections)
    return seen


def compare(options):
    with open(options.report) as file:
        report = json.load(file)
    allowed = {}
    for word in options.allow:
        case, kind = word.split(":", 1)
        kind, _, most = kind.partition("~")
        allowed[case, kind] = int(most or sys.maxsize)
    ways, used, differences = {}, set(), 0
    few_of, few = set(options.few[1:]), {}
    for course in courses_of(options.courses):
        ways.setdefault(course.case, {})[course.way] = seen_of(report, course.port)
    for case, seen in ways.items():
        bare = seen.pop("bare")
        for way in [way for way in seen if seen[way].pop("wrong", 0)]:
            print(f"{case} {way}: a checksum is wrong")
            differences += 1
        bare.pop("wrong", None)
        if not bare["connections"]:
            print(f"{case}: the wire saw nothing of the way without baton")
            differences += 1
        for way, kinds in seen.items():
            for kind in sorted(set(bare) | set(kinds)):
                if bare[kind] == kinds[kind] or (options.beyond and kinds[kind] < bare[kind]):
                    continue
                by = abs(kinds[kind] - bare[kind])
                match = {(pattern, of) for (pattern, of), most in allowed.items()
                         if fnmatch.fnmatch(f"{case}/{way}", pattern) and kind == of and by <= most}
                used |= match
                known = bool(match)
                if not known and kind in few_of and by == 1:
                    few.setdefault((case, way), []).append(kind)
                    continue
                print(f"{'known: ' if known else ''}{case} {way}: {kind}: {kinds[kind]} instead of {bare[kind]}")
                differences += not known
    for (case, way), kinds in few.items():
        print(f"perhaps chance: {case} {way}: one more or less: {', '.join(kinds)}")
    differences += max(0, len(few) - int(options.few[0]))
    unused = sorted(f"{case}:{of}" for case, of in allowed.keys() - used)
    print(f"{len(ways)} cases compared, {differences} differences; known and not met: {', '.join(unused) or 'none'}")
    return differences > 0 or not ways


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run")
    command.set_defaults(run=run)
    command.add_argument("courses")
    command.add_argument("logs", nargs="*")
    command = commands.add_parser("cookie")
    command.set_defaults(run=cookie)
    command.add_argument("address")
    command = commands.add_parser("compare")
    command.set_defaults(run=compare)
    command.add_argument("report")
    command.add_argument("courses")
    command.add_argument("allow", nargs="*")
    command.add_argument("--beyond", action="store_true")
    command.add_argument("--few", nargs="+", default=["0"])
    options = parser.parse_args()
    sys.exit(options.run(options))


main()
