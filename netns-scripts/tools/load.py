"""A client for many connections that counts every error. The answer's status, its X-Server header and every octet of
its body are checked. Prints one JSON object and exits with 1 when there was an error.

  load.py close ADDRESS --connections N [--concurrency N]    one request per connection, `Connection: close`
  load.py keep ADDRESS --requests N [--connections N]        requests over kept-alive connections
  load.py stream ADDRESS --until FILE [--concurrency N]      `close` until FILE exists
  load.py silent ADDRESS --connections N --silence SECONDS   all connect, say nothing, then ask
  load.py drip ADDRESS --connections N                       the request octet by octet, each in a segment of its own
  load.py hold ADDRESS --connections N --ready FILE --until FILE    all ask, FILE says that all are answered; then they
                                                             say nothing until FILE exists, and ask once more
  load.py reuse ADDRESS --connections N --source-port PORT   one after the other, all from one source port

`close` takes --from ADDRESS, such as fe80::1%eth0. Each takes --expect PATH=SERVER[=BODY] (repeatable; connections take them in turn; SERVER may be `any`; BODY is a file)
and --body FILE for those that name none.
"""

import argparse
import collections
import errno
import json
import multiprocessing
import os
import socket
import sys
import threading
import time

TIMEOUT = 30


class Wrong(Exception):
    """An answer that is not the one that was asked for."""


class Connection:
    def __init__(self, address, source_port=None, source=None):
        self.socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.socket.settimeout(TIMEOUT)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source_port is not None:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self.socket.bind(("", source_port))
            if source is not None:
                self.socket.bind(socket.getaddrinfo(source, 0, self.socket.family)[0][4])
            self.socket.connect((address, 80))
        except OSError:
            self.socket.close()
            raise
        self.received = b""

    def close(self):
        self.socket.close()

    def more(self):
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise Wrong("connection closed early")
        self.received += piece

    def ask(self, path, close):
        persistence = b"Connection: close\r\n" if close else b""
        self.socket.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: stage\r\n" + persistence + b"\r\n")

    def answer(self, server, body):
        """Reads one answer and checks it; returns who gave it."""
        while (end := self.received.find(b"\r\n\r\n")) < 0:
            self.more()
        lines = self.received[:end].split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        end += 4 + int(headers.get(b"content-length", 0))
        while len(self.received) < end:
            self.more()
        answer, self.received = self.received[:end], self.received[end:]
        status, answered_by = lines[0].split()[1].decode(), headers.get(b"x-server", b"nobody").decode()
        if status != "200":
            raise Wrong(f"status {status} from {answered_by}")
        if server not in ("any", answered_by):
            raise Wrong(f"{answered_by} instead of {server}")
        if body is not None and not answer.endswith(body):
            raise Wrong(f"wrong body from {answered_by}")
        return answered_by

    def ended(self):
        """The server closes; after that the four-tuple is free for this client at once."""
        while piece := self.socket.recv(4096):
            raise Wrong(f"{len(piece)} octets after the answer")


class Tally:
    def __init__(self):
        self.answers = collections.Counter()
        self.errors = collections.Counter()
        self.lock = threading.Lock()

    def answered(self, by, times=1):
        with self.lock:
            self.answers[by] += times

    def failed(self, error):
        name = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
        with self.lock:
            self.errors[name] += 1


def one_request(options, tally, index):
    path, server, body = options.expect[index % len(options.expect)]
    try:
        connection = Connection(options.address, source=options.source)
        try:
            connection.ask(path, close=True)
            by = connection.answer(server, body)
            connection.ended()
        finally:
            connection.close()
        tally.answered(by)
    except (OSError, ValueError, Wrong) as error:
        tally.failed(error)


def close(options, tally, indices):
    queue = iter(indices)
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                index = next(queue, None)
            if index is None:
                return
            one_request(options, tally, index)

    return work


def stream(options, tally, _):
    def work():
        index = 0
        while not os.path.exists(options.until):
            one_request(options, tally, index)
            index += 1

    return work


def keep(options, tally, indices):
    """`indices` are connections here; each does its share of the requests."""
    queue = iter(indices)
    lock = threading.Lock()
    share = -(-options.requests // options.connections)

    def work():
        while True:
            with lock:
                index = next(queue, None)
            if index is None:
                return
            path, server, body = options.expect[index % len(options.expect)]
            todo = max(0, min(share, options.requests - index * share))
            done = 0
            try:
                connection = Connection(options.address)
                try:
                    by = None
                    for done in range(todo):
                        connection.ask(path, close=False)
                        by = connection.answer(server, body)
                        tally.answered(by)
                finally:
                    connection.close()
            except (OSError, ValueError, Wrong) as error:
                tally.failed(error)

    return work


def silent(options, tally):
    connections = []
    for index in range(options.connections):
        try:
            connections.append((index, Connection(options.address)))
        except OSError as error:
            tally.failed(error)
    time.sleep(options.silence)
    for index, connection in connections:
        try:
            connection.ask(options.expect[index % len(options.expect)][0], close=True)
        except OSError as error:
            tally.failed(error)
    for index, connection in connections:
        try:
            tally.answered(connection.answer(*options.expect[index % len(options.expect)][1:]))
        except (OSError, ValueError, Wrong) as error:
            tally.failed(error)
        connection.close()


def hold(options, tally):
    open_ones = []
    for index in range(options.connections):
        path, server, body = options.expect[index % len(options.expect)]
        try:
            connection = Connection(options.address)
            connection.ask(path, close=False)
            tally.answered(connection.answer(server, body))
            open_ones.append((connection, path, server, body))
        except (OSError, ValueError, Wrong) as error:
            tally.failed(error)
    with open(options.ready, "w"):
        pass
    bound = time.monotonic() + 300
    while not os.path.exists(options.until) and time.monotonic() < bound:
        time.sleep(0.05)
    for connection, path, server, body in open_ones:
        try:
            connection.ask(path, close=True)
            tally.answered(connection.answer(server, body))
            connection.ended()
        except (OSError, ValueError, Wrong) as error:
            tally.failed(error)
        connection.close()


def drip(options, tally):
    """A kernel sends ten such segments; then it waits for an acknowledgement before the rest."""
    for index in range(options.connections):
        path, server, body = options.expect[index % len(options.expect)]
        try:
            connection = Connection(options.address)
            for octet in f"GET {path} HTTP/1.1\r\nHost: stage\r\nConnection: close\r\n\r\n".encode():
                connection.socket.sendall(bytes([octet]))
                time.sleep(0.01)
            tally.answered(connection.answer(server, body))
            connection.close()
        except (OSError, ValueError, Wrong) as error:
            tally.failed(error)


def reuse(options, tally):
    for index in range(options.connections):
        # Until the server has acknowledged the client's FIN the four-tuple is taken, and the kernel says so at once.
        for attempt in range(200):
            path, server, body = options.expect[index % len(options.expect)]
            try:
                connection = Connection(options.address, options.source_port)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL) and attempt < 199:
                    time.sleep(0.01)
                    continue
                tally.failed(error)
                break
            try:
                connection.ask(path, close=True)
                by = connection.answer(server, body)
                connection.ended()
                tally.answered(by)
            except (OSError, ValueError, Wrong) as error:
                tally.failed(error)
            connection.close()
            break


def share_of_work(options, kind, indices, threads, results):
    tally = Tally()
    work = kind(options, tally, indices)
    crew = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    results.put((tally.answers, tally.errors))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["close", "keep", "stream", "silent", "hold", "drip", "reuse"])
    parser.add_argument("address")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--requests", type=int, default=0)
    parser.add_argument("--silence", type=float, default=0)
    parser.add_argument("--source-port", type=int)
    parser.add_argument("--from", dest="source")
    parser.add_argument("--until")
    parser.add_argument("--ready")
    parser.add_argument("--expect", action="append", required=True)
    parser.add_argument("--body")
    options = parser.parse_args()
    contents = {None: None}

    def content(name):
        if name not in contents:
            with open(name, "rb") as file:
                contents[name] = file.read()
        return contents[name]

    # Path, server, and the body that the answer must have.
    expectations = [(*expectation.split("="), options.body)[:3] for expectation in options.expect]
    options.expect = [(path, server, content(body)) for path, server, body in expectations]

    answers, errors = collections.Counter(), collections.Counter()
    started = time.monotonic()
    if options.kind in ("silent", "hold", "drip", "reuse"):
        tally = Tally()
        {"silent": silent, "hold": hold, "drip": drip, "reuse": reuse}[options.kind](options, tally)
        answers, errors = tally.answers, tally.errors
    else:
        kind = {"close": close, "keep": keep, "stream": stream}[options.kind]
        processes = min(2, options.concurrency)
        results = multiprocessing.Queue()
        crew = []
        for number in range(processes):
            indices = range(number, options.connections, processes)
            arguments = (options, kind, indices, options.concurrency // processes, results)
            crew.append(multiprocessing.Process(target=share_of_work, args=arguments))
            crew[-1].start()
        for _ in crew:
            more_answers, more_errors = results.get()
            answers += more_answers
            errors += more_errors
        for process in crew:
            process.join()

    seconds = time.monotonic() - started
    print(json.dumps({
        "answers": sum(answers.values()),
        "errors": sum(errors.values()),
        "by": dict(sorted(answers.items())),
        "kinds": dict(errors.most_common(8)),
        "seconds": round(seconds, 2),
    }))
    sys.exit(1 if errors else 0)


main()
