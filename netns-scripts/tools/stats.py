"""Reads the flat object that `baton stats --json` prints. The names of the statistics live here and nowhere else.

  get NAME                     one number from standard input; a name that is not there is an error, not a zero
  counts NODE BEFORE AFTER     what was counted between two files, as NODE.NAME=N, without zeros
  decided BEFORE               the rules that have decided between a file and standard input, without repetition
"""

import json
import re
import sys

# What scenarios call a count, and what the daemon calls it.
NAMES = {
    "handed_off": "handoffs_committed_total",
    "accepted": "handoffs_accepted_total",
}
DECISION = re.compile(r'^decisions_total\{service="[^"]*",rule="([^"]*)"\}$')
FALLBACK = re.compile(r'^fallbacks_total\{reason="([a-z_]+)"\}$')


def number(value):
    return int(value) if float(value).is_integer() else float(value)


def counts(statistics):
    found = {name: number(statistics.get(real, 0)) for name, real in NAMES.items()}
    for real, value in statistics.items():
        reason = FALLBACK.match(real)
        if reason:
            found["fallback." + reason.group(1)] = number(value)
    return found


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def main():
    if sys.argv[1] == "get":
        statistics = json.load(sys.stdin)
        if sys.argv[2] not in statistics:
            sys.exit(f"there is no statistic called {sys.argv[2]}")
        print(number(statistics[sys.argv[2]]))
    elif sys.argv[1] == "counts":
        node, before, after = sys.argv[2], counts(load(sys.argv[3])), counts(load(sys.argv[4]))
        for name, value in sorted(after.items()):
            # A process that has started anew counts from zero again; negative differences are shown, not hidden.
            difference = value - before.get(name, 0)
            if difference:
                print(f"{node}.{name}={difference}")
    elif sys.argv[1] == "decided":
        before, after = load(sys.argv[2]), json.load(sys.stdin)
        rules = [DECISION.match(name) for name, value in after.items() if value > before.get(name, 0)]
        print(" ".join(sorted({rule.group(1) for rule in rules if rule})) or "none")
    else:
        sys.exit(__doc__)


main()
