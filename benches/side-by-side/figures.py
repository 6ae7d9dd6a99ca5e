"""From runs to lines: medians, spreads, ratios, and what was asked."""

from statistics import median

from workloads import ASKED, FIGURES, MIDDLES, WORKLOADS

ROLES = ("front-end", "back-end", "server", "client", "machine")


def values_of(run):
    """The values of one run that are summed up: names to numbers."""
    workload = WORKLOADS[run["workload"]]
    units = run["octets_checked"] / 1e9 if workload.by_octets() else run["answered"] / 1e4
    values = {name: run[name] for name in ("rate", "throughput", "first_octet_p50", "first_octet_p99")}
    values |= {f"cpu {role}": seconds / units for role, seconds in run["cpu"].items() if role != "stolen"}
    values |= {f"peak {role}": octets for role, octets in run["peak"].items()}
    return values


def lines(runs):
    """(workload, middle) to name to {median, least, most, all by round}; in the order of workloads and middles."""
    found = {}
    for workload in WORKLOADS:
        for middle in MIDDLES:
            mine = [run for run in runs if (run["workload"], run["middle"]) == (workload, middle)]
            right = {run["round"]: values_of(run) for run in mine if not run["wrong"] and not run["mixed"]}
            if not right:
                continue
            names = next(iter(right.values()))
            found[workload, middle] = {name: spread({number: values[name] for number, values in right.items()}) for name in names}
    return found


def spread(by_round):
    numbers = list(by_round.values())
    return {"median": median(numbers), "least": min(numbers), "most": max(numbers), "by_round": by_round}


def compared(lines_, workload, middle, other, name, how):
    """`how` of the medians, and the least and most of the rounds, each compared with its own: (median, least, most)."""
    mine, others = lines_.get((workload, middle), {}).get(name), lines_.get((workload, other), {}).get(name)
    if mine is None or others is None:
        return None
    pairs = [(value, others["by_round"][number]) for number, value in mine["by_round"].items() if number in others["by_round"]]
    if not pairs or (how is ratio and not all(pair[1] for pair in [*pairs, (0, others["median"])])):
        return None
    each = [how(*pair) for pair in pairs]
    return how(mine["median"], others["median"]), min(each), max(each)


def ratio(value, other):
    return value / other


def difference(value, other):
    return value - other


def asked(lines_):
    """Each Asked with what was measured (None: not) and whether that is enough."""
    found = []
    for one in ASKED:
        how = difference if one.relation == "within" else ratio
        measured = compared(lines_, one.workload, one.middle, one.other, one.value, how)
        met = None
        if measured is not None:
            met = measured[0] >= one.bound if one.relation == "at least" else measured[0] <= one.bound
        found.append((one, measured, met))
    return found


def figure_name(workload):
    return FIGURES[WORKLOADS[workload].figure]
