"""Measures on the stage that benches/side-by-side.sh has set up, and shows what came of it; with --from, only the latter."""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import chart
import figures
import measure
import show
from workloads import MIDDLES, WORKLOADS

DOCS = Path(__file__).resolve().parents[2] / "docs"
MARKS = ("<!-- measured: by benches/side-by-side.sh --write-docs -->", "<!-- end of what was measured -->")
# Above that, somebody else is at work on this machine, and figures say little.
QUIET = 0.05


def parse():
    parser = argparse.ArgumentParser(prog="benches/side-by-side.sh", usage="%(prog)s [OPTION...]; --help tells which", add_help=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--gigabyte", type=int)
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--from", dest="source", type=Path)
    parser.add_argument("--check", action="store_true")  # only the arguments; prints the size of the large file
    parser.add_argument("--stage")
    parser.add_argument("--client")
    parser.add_argument("--load")
    parser.add_argument("--baton")
    parser.add_argument("--pins")
    parser.add_argument("--congestion")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (0.4 if options.quick else 3.0)
    options.gigabyte = options.gigabyte or (1 << 27 if options.quick else 1 << 30)
    options.workloads = options.only.split(",")
    for name in options.workloads:
        if name not in WORKLOADS:
            parser.error(f"no such workload: {name}. There are: {' '.join(WORKLOADS)}")
    if options.write_docs and options.quick:
        parser.error("--quick is for correctness; its figures are not for documents")
    return options


def first_line(*command):
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return "unknown"
    return (answer.stdout + answer.stderr).split("\n", 1)[0].strip()


def take_conditions(options):
    servers, clients, middles = options.pins.split()
    return {
        "date": datetime.date.today().isoformat(),
        "kernel": platform.release(),
        "congestion": options.congestion,
        "processors": os.cpu_count(),
        "others_before": measure.busy_share(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "gigabyte": options.gigabyte,
        "pins": {"servers": servers, "clients": clients, "middles": middles},
        "baton": first_line("git", "-C", str(DOCS.parent), "rev-parse", "--short", "HEAD"),
        "haproxy": first_line("haproxy", "-v").split(" ")[2].split("-")[0],
        "nginx": first_line("nginx", "-v").rsplit("/", 1)[-1],
    }


def in_words(conditions):
    words = (
        "{date}: {rounds} rounds of {seconds:g} s, Linux {kernel}, {congestion}, {processors} processors, HAProxy {haproxy}, nginx {nginx}, "
        "baton at {baton}; others used {others_before:.0%} of the machine before the start."
    ).format(**conditions)
    if conditions["gigabyte"] != 1 << 30:
        words += f" The large file had {conditions['gigabyte'] / 2**20:.0f} MiB."
    return words


def tell(run):
    workload = WORKLOADS[run["workload"]]
    if run["wrong"]:
        words = "WRONG: " + "; ".join(run["wrong"])
    else:
        name, divisor, unit = figures.figure_name(run["workload"])
        words = f"{show.number(run[name] / divisor)} {unit}, {run['connections']} connections, {run['octets_checked']} octets right"
    if run["mixed"]:
        words = f"not counted: {'; '.join(run['mixed'])}; {words}"
    counts = " ".join(f"{name}={value}" for name, value in run.get("counts", {}).items() if value)
    print(f"  {run['round']} {workload.name:<12} {run['middle']:<8} {words}  {counts}", flush=True)


def write_docs(lines, conditions):
    words = in_words(conditions)
    (DOCS / "performance.svg").write_text(chart.svg(lines, words), encoding="utf-8")
    document = DOCS / "performance.md"
    content = document.read_text(encoding="utf-8")
    before, rest = content.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    measured = "\n".join(show.markdown(lines, words))
    document.write_text(f"{before}{MARKS[0]}\n\n![What was reached, and the processor time it took](performance.svg)\n\n{measured}\n\n{MARKS[1]}{after}", encoding="utf-8")
    print(f"written: {document}, {DOCS / 'performance.svg'}")


def main():
    options = parse()
    if options.check:
        print(options.gigabyte)
        return 0
    if options.source:
        measured = json.loads(options.source.read_text(encoding="utf-8"))
    else:
        measured = {"conditions": take_conditions(options), "runs": []}
        clients = measured["conditions"]["pins"]["clients"]
        stage = measure.Stage(options.stage, options.client, options.load, options.baton, clients, options.seconds, options.gigabyte)
        if wrong := measure.wait_until_right(stage):
            print(f"WRONG from the beginning: {wrong}", file=sys.stderr)
            return 1
        unnoticed, controls = measure.controls(stage)
        if unnoticed:
            print("what is wrong is not noticed:", "; ".join(unnoticed), file=sys.stderr)
            return 1
        print(f"controls: {controls} runs that were wrong on purpose were noticed", flush=True)
        measured["runs"] = list(measure.all_rounds(stage, options.workloads, options.rounds, tell))
    runs, conditions = measured["runs"], measured["conditions"]
    lines = figures.lines(runs)
    print("\n".join(show.terminal(lines)))
    print("\n" + in_words(conditions))
    if conditions["others_before"] > QUIET:
        print("Others are at work on this machine: these figures are worth little.")
    wrong = [run for run in runs if run["wrong"]]
    if options.json:
        measured["lines"] = [{"workload": workload, "middle": middle} | line for (workload, middle), line in lines.items()]
        measured["asked"] = [{"what": one.what, "relation": one.relation, "bound": one.bound, "measured": found, "met": met} for one, found, met in figures.asked(lines)]
        options.json.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    if options.svg:
        options.svg.write_text(chart.svg(lines, in_words(conditions)), encoding="utf-8")
    for run in wrong:
        print(f"WRONG: round {run['round']}, {WORKLOADS[run['workload']].title}, {MIDDLES[run['middle']]}: {'; '.join(run['wrong'])}", file=sys.stderr)
    if wrong:
        return 1
    if options.write_docs:
        write_docs(lines, conditions)
    mixed = sum(1 for run in runs if run["mixed"])
    if mixed:
        print(f"{mixed} runs are not counted: a link did not answer in time, and the overlay took its place.")
    octets = sum(run["octets_checked"] for run in runs)
    connections = sum(run["connections"] for run in runs)
    print(f"{len(runs)} runs, {connections:,} connections, {octets:,} octets, each one right; no error.")
    return 0


sys.exit(main())
