#!/usr/bin/env python3
"""Sends every trick of a table to nginx and compares what nginx made of it with what baton says.

smuggling.py BATON TABLE CLUSTER.yaml ADDRESS PORT [--as-if-clear NAME]

nginx must answer `seen host=HOST uri=URI` lines. Behind each trick goes a plain request for /next, so that it shows where
nginx takes the trick to end. What nginx refuses, or reads as another host, path or length than baton, must be ambiguous for
baton. With --as-if-clear baton is taken to have said that this one is clear: the comparison must notice.
"""

import collections
import concurrent.futures
import json
import re
import socket
import subprocess
import sys
import tempfile

NEXT = b"GET /next HTTP/1.1\r\nHost: next.example\r\nConnection: close\r\n\r\n"
PATIENCE = 1.0  # seconds nginx may wait for more


def ask_nginx(address, port, trick):
    """The status of the first answer (None without one), and what nginx saw: pairs of host and URI."""
    with socket.create_connection((address, port), timeout=5) as connection:
        connection.settimeout(PATIENCE)
        answer = b""
        try:
            connection.sendall(trick + NEXT)
            while part := connection.recv(65536):
                answer += part
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
    status = re.match(rb"HTTP/1\.1 (\d+)", answer)
    seen = re.findall(rb"^seen host=(.*?) uri=(.*)$", answer, re.M)
    return int(status[1]) if status else None, seen


def ask_baton(baton, cluster, trick):
    """None if it is ambiguous, else host and path; and the label."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(trick)
        file.flush()
        command = [baton, "explain", cluster, "--node", "a", "--service", "web", "--request", file.name, "--json"]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=20).stdout)
    if answer["outcome"] == "ambiguous":
        return None, answer["ambiguity"]
    assert answer["outcome"] == "decided", answer
    return (answer["request"]["host"], answer["request"]["path"]), "clear"


def difference(trick, status, seen, asked):
    """How nginx differs from baton; None if it does not."""
    if status != 200 or not seen:
        return f"nginx refuses it ({status})"
    host, path = asked
    if seen[0][0].decode() != (host or "") or seen[0][1].decode() != re.sub("/+", "/", path):
        return f"nginx saw {seen[0]}, baton {asked}"
    if b" HTTP/1.1\r" in trick and seen[1:] != [(b"next.example", b"/next")]:
        return f"nginx took another length: then it saw {seen[1:]}"
    return None


def main():
    baton, table, cluster, address, port, *rest = sys.argv[1:]
    as_if_clear = rest[1] if rest else None
    tricks = json.load(open(table, encoding="utf-8"))

    def one(row):
        trick = row["bytes"].encode("latin-1")
        return row, trick, ask_nginx(address, int(port), trick), ask_baton(baton, cluster, trick)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, tricks))
    wrong, counts = [], collections.Counter()
    for row, trick, (status, seen), (asked, label) in results:
        name = row["name"]
        if label != row["expect"]:
            wrong.append(f"{name}: baton says {label}, the table {row['expect']}")
        if name == as_if_clear:
            asked = ("a.example", "/x")
        if asked is None:
            refused = status != 200 or not seen
            counts["ambiguous, and nginx refuses it" if refused else "ambiguous, though nginx takes it"] += 1
            counts[f"of kind {label}"] += 1
            continue
        counts["clear, and nginx reads it alike"] += 1
        if differs := difference(trick, status, seen, asked):
            wrong.append(f"{name}: clear, but {differs}")
    if as_if_clear and as_if_clear not in [row["name"] for row in tricks]:
        wrong.clear()
    for what, count in sorted(counts.items()):
        print(f"{count:4} {what}")
    for line in wrong:
        print(line, file=sys.stderr)
    sys.exit(1 if wrong else 0)


main()
