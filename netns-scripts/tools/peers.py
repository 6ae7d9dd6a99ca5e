"""Reads what `baton peers --json` prints (standard input).

  up            how many peers have a session
  state PEER    `up` or `down`
  warnings      what stands between the kernels, one sentence a line
"""

import json
import sys


def main():
    peers = json.load(sys.stdin)
    while isinstance(peers, dict):
        peers = peers["peers"]

    def is_up(peer):
        return peer["state"] == "up"

    if sys.argv[1] == "up":
        print(sum(1 for peer in peers if is_up(peer)))
    elif sys.argv[1] == "state":
        found = [peer for peer in peers if peer["name"] == sys.argv[2]]
        print("up" if found and is_up(found[0]) else "down")
    elif sys.argv[1] == "warnings":
        for peer in peers:
            for warning in peer["warnings"]:
                print(warning)
    else:
        sys.exit(__doc__)


main()
