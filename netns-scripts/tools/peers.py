"""Reads what `baton peers --json` prints (standard input).

  up            how many peers have a session
  state PEER    `up` or `down`
"""

import json
import sys


def main():
    peers = json.load(sys.stdin)
    if isinstance(peers, dict):
        peers = peers.get("peers", peers)
    if isinstance(peers, dict):
        peers = [{"name": name, **value} for name, value in peers.items()]

    def is_up(peer):
        state = peer.get("state", peer.get("up", peer.get("connected")))
        return state in (True, "up", "connected", "established")

    if sys.argv[1] == "up":
        print(sum(1 for peer in peers if is_up(peer)))
    elif sys.argv[1] == "state":
        found = [peer for peer in peers if peer.get("name", peer.get("node")) == sys.argv[2]]
        print("up" if found and is_up(found[0]) else "down")
    else:
        sys.exit(__doc__)


main()
