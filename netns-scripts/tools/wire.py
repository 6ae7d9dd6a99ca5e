"""Answers questions about the switch's counters (`nft -j list table bridge wire` on standard input).

  alias-packets                     packets with an alias address as source or destination, on any wire
  payload PORT [TO [SOURCE_PORT]]   TCP payload octets that left the wire of server PORT, to TO, from SOURCE_PORT
  resets PORT [TO [SOURCE_PORT]]    TCP resets that left the wire of PORT
  traffic PORT TO PROTOCOL          octets of IP packets that left the wire of PORT for TO ("*": any)
  errors PORT [TO]                  ICMP and ICMPv6 errors and redirects that left the wire of PORT for TO
  summary                           everything, for a person
"""

import json
import sys


def load():
    counters, sets = {}, {}
    for item in json.load(sys.stdin)["nftables"]:
        if "counter" in item:
            counters[item["counter"]["name"]] = item["counter"]
        elif "set" in item:
            rows = []
            for element in item["set"].get("elem", []):
                element = element["elem"]
                rows.append((element["val"]["concat"], element["counter"]))
            sets[item["set"]["name"]] = rows
    return counters, sets


def matches(key, wanted):
    return all(want == "*" or str(part) == want for part, want in zip(key, wanted))


def selection(arguments):
    """The keys are (port of the switch, source address, destination address, and mostly the source port)."""
    port, to, source_port = (arguments + ["*", "*", "*"])[:3]
    return [port, "*", to, source_port]


def of_both(sets, name):
    """Yields (key, octets of the IP header, counter) of what is counted in one set for each family."""
    for family, header in (("ip", 20), ("ip6", 40)):
        for key, counter in sets[f"{family}_{name}"]:
            yield key, header, counter


def payload(sets, wanted):
    total = 0
    for offset in range(5, 16):
        for key, header, counter in of_both(sets, f"payload_{offset}"):
            if matches(key, wanted):
                total += counter["bytes"] - counter["packets"] * (header + 4 * offset)
    return total


def main():
    question, arguments = sys.argv[1], sys.argv[2:]
    counters, sets = load()
    if question == "alias-packets":
        print(counters["alias_packets"]["packets"])
    elif question == "payload":
        print(payload(sets, selection(arguments)))
    elif question == "resets":
        print(sum(c["packets"] for key, _, c in of_both(sets, "resets") if matches(key, selection(arguments))))
    elif question == "traffic":
        port, to, protocol = arguments
        print(sum(c["bytes"] for key, _, c in of_both(sets, "traffic") if matches(key, [port, "*", to, protocol])))
    elif question == "errors":
        print(sum(c["packets"] for key, _, c in of_both(sets, "errors") if matches(key, selection(arguments))))
    elif question == "summary":
        print("packets with an alias address:", counters["alias_packets"]["packets"])
        keys = {tuple(key) for offset in range(5, 16) for key, _, _ in of_both(sets, f"payload_{offset}")}
        for key in sorted(keys, key=str):
            print("payload", *key, payload(sets, [str(part) for part in key]))
        for key, _, counter in of_both(sets, "resets"):
            print("resets", *key, counter["packets"])
        for key, _, counter in of_both(sets, "traffic"):
            print("traffic", *key, counter["packets"], "packets", counter["bytes"], "octets")
    else:
        sys.exit(__doc__)


main()
