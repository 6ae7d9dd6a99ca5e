"""Waits until processes end, and looks meanwhile whether a connection of this namespace stands still.

  standstill.py SECONDS PORT PID...

Exit status 0 when all of them have ended. 3 when a connection to that port has neither sent nor received an octet that was
acknowledged for so long: prints its local port, its state and how far it is.
"""

import re
import subprocess
import sys
import time

LOOK_EVERY = 0.25


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def connections(port):
    """Local port, state, octets that went either way."""
    command = ["ss", "-Htin", "state", "connected", f"dport = :{port}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # Each connection is one line, and more lines that are indented.
    for connection in re.split(r"\n(?=\S)", told):
        found = re.match(r"(\S+)\s+\d+\s+\d+\s+\S+:(\d+)\s", connection)
        # What is over moves no more.
        if found and found[1] != "TIME-WAIT":
            yield found[2], found[1], sum(map(int, re.findall(r"bytes_(?:acked|received):(\d+)", connection)))


def main():
    limit, port, pids = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    seen = {}
    while any(map(runs, pids)):
        now = time.monotonic()
        for local, state, octets in connections(port):
            before, since = seen.get(local, (None, now))
            if before != octets:
                seen[local] = octets, now
            elif now - since > limit:
                print(local, state, octets)
                sys.exit(3)
        time.sleep(LOOK_EVERY)


main()
