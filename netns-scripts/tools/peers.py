"""Reads what `baton peers --json` prints (standard input).

  up            how many peers have a session
  state PEER    `up` or `down`
  warnings      what stands between the kernels, one sentence a line
  health PEER SERVICE   `up`, `down` or `unknown`, and why it is passed over if it is
  probe PEER SERVICE    `ok`, or `failed` and the step at which it failed; `none` before the first
  file PEER     `same`, `differs`, or `unknown`
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
    elif sys.argv[1] in ("health", "probe"):
        services = [service for peer in peers if peer["name"] == sys.argv[2] for service in peer["services"]]
        [service] = [service for service in services if service["service"] == sys.argv[3]]
        if sys.argv[1] == "health":
            print(service["health"], service["passed_over"] or "")
        else:
            probe = service["probe"] or {"state": "none", "failed_at": None}
            print(probe["state"], probe["failed_at"] or "")
    elif sys.argv[1] == "file":
        [peer] = [peer for peer in peers if peer["name"] == sys.argv[2]]
        print("unknown" if not peer["cluster_file_hash"] else "differs" if peer["cluster_file_differs"] else "same")
    else:
        sys.exit(__doc__)


main()
