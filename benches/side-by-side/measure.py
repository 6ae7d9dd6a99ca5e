"""The runs: one workload through one middle each, in rounds in which the middles take turns."""

import json
import os
import resource
import subprocess
import time
from dataclasses import replace

import accounts
from workloads import HANDED_OFF, WORKLOADS

# A run that takes longer has failed.
RUN_SECONDS_MAX = 120
# So often a run is tried in which a link did not take what it should.
ATTEMPTS = 3


def of_children():
    """Processor seconds of clients that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Stage:
    """What benches/side-by-side.sh has set up."""

    def __init__(self, directory, client, load, baton, pin_clients, seconds, gigabyte):
        self.directory = directory
        self.client = ["ip", "netns", "exec", client, "taskset", "-c", pin_clients, load]
        self.baton = baton
        self.seconds = seconds
        self.gigabyte = gigabyte
        with open(f"{directory}/stage.json", encoding="utf-8") as file:
            self.middles = json.load(file)

    def command(self, workload, place, seconds):
        size = workload.size or self.gigabyte
        command = [*self.client, workload.kind, place["web" if workload.kind == "get" else "upload"]]
        command += ["--size", str(size), "--server", place["server"], "--concurrency", str(workload.concurrency)]
        command += ["--path", place["prefix"] + (place.get("file", str(size)) if workload.kind == "get" else "upload")]
        if "spoil" in place:
            command += ["--spoil", place["spoil"]]
        command += ["--seconds", str(seconds)] if workload.timed else ["--count", "1"]
        if workload.keep:
            command.append("--keep")
        if workload.pace:
            command += ["--pace", str(workload.pace)]
        return command

    def processes(self, workload, middle):
        """Role and process id of those that take part."""
        server = "server" if workload.kind == "get" else "sink"
        roles = self.middles[middle]["processes"]
        return {("server" if role == server else role): pid for role, pid in roles.items() if role not in {"server", "sink"} - {server}}

    def run(self, workload, middle, seconds, place=None):
        """One run, as a dictionary. What went wrong is under `wrong`; `mixed` says why nothing is wrong, and yet the run says
        nothing of this middle. `place`: other than the stage says."""
        processes = self.processes(workload, middle)
        is_baton = middle in ("local", *HANDED_OFF)
        counted = accounts.baton_counts(self.baton, self.directory) if is_baton else None
        proxied = accounts.haproxy_counts(self.directory) if middle == "haproxy" else None
        for pid in processes.values():
            accounts.forget_peak(pid)
        before = {role: accounts.cpu_of(pid) for role, pid in processes.items()}
        machine, children, began = accounts.machine(), of_children(), time.monotonic()
        client = subprocess.Popen(self.command(workload, place or self.middles[middle], seconds), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            output, complaint = client.communicate(timeout=RUN_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            client.kill()
            output, complaint = client.communicate()
        took = time.monotonic() - began
        after = accounts.machine()
        run = {"workload": workload.name, "middle": middle, "took": took, "wrong": [], "mixed": []}
        run["cpu"] = {role: accounts.cpu_of(pid) - before[role] for role, pid in processes.items()}
        run["cpu"] |= {"client": of_children() - children} | {what: after[what] - machine[what] for what in after}
        run["peak"] = {role: accounts.peak_of(pid) for role, pid in processes.items()}
        try:
            run |= json.loads(output)
        except ValueError:
            run["wrong"].append(f"the client said nothing within {RUN_SECONDS_MAX} s: {complaint.strip()}")
            return run
        if run["errors"] or not run["answered"]:
            run["wrong"].append(f"{run['errors']} errors: {run['kinds']}")
            return run
        run["rate"] = run["counted"] / run["seconds"]
        run["throughput"] = run["rate"] * (workload.size or self.gigabyte)
        if counted:
            self.check_counts(run, counted, accounts.baton_counts(self.baton, self.directory))
        if proxied:
            spliced = accounts.haproxy_counts(self.directory)["spliced"] - proxied["spliced"]
            run["counts"] = {"spliced": spliced}
            # Nobody shall be measured below his best.
            if workload.by_octets() and spliced < 0.9 * run["octets_checked"]:
                run["wrong"].append(f"spliced: {spliced} of {run['octets_checked']} octets")
        return run

    @staticmethod
    def check_counts(run, before, after):
        """Fail-open makes a broken handoff look healthy, and a SYN that nobody saw looks fast: counts tell."""

        def grown(node, name):
            return sum(value - before[node].get(key, 0) for key, value in after[node].items() if key.split("{")[0] == name)

        counts = {
            "syns": grown("a", "syns_total"),
            "released": grown("a", "released_local_total"),
            "handed_off": grown("a", "handoffs_committed_total"),
            "accepted": grown("b", "handoffs_accepted_total"),
            "fallbacks": grown("a", "fallbacks_total"),
            "resets": grown("a", "resets_total") + grown("b", "resets_total"),
            "linked": grown("a", "linked_total"),
            "overlay_packets": grown("a", "overlay_sent_packets_total"),
            "read_packets_a": grown("a", "tun_read_packets_total"),
            "read_packets_b": grown("b", "tun_read_packets_total"),
        }
        run["counts"] = counts
        connections = run["connections"]
        is_local, is_linked = run["middle"] == "local", run["middle"] in ("link", "auto")
        expected = {
            "released": connections if is_local else 0,
            "handed_off": 0 if is_local else connections,
            "accepted": 0 if is_local else connections,
            "fallbacks": 0,
            "resets": 0,
        }
        for name, number in expected.items():
            if counts[name] != number:
                run["wrong"].append(f"{name}: {counts[name]} of {number} in {connections} connections")
        # Where a link does not answer in time, the overlay takes its place. What a client says before its owner has the request
        # goes through the overlay in any case: of a short connection that may be all.
        if is_linked and counts["linked"] < 0.95 * connections and run["octets_checked"] > 10_000 * connections:
            run["mixed"].append(f"linked: {counts['linked']} of {connections}")
        if is_linked and counts["overlay_packets"] > 3 * connections + run["octets_checked"] / 1e6:
            run["mixed"].append(f"overlay_packets: {counts['overlay_packets']} in {connections} connections")
        # A SYN may be repeated.
        if counts["syns"] < connections:
            run["wrong"].append(f"syns: {counts['syns']} captured of {connections}")


def busy_share(seconds=1.0):
    """How much of the machine others use, before anything is measured."""
    before, began = accounts.machine(), time.monotonic()
    time.sleep(seconds)
    return (accounts.machine()["machine"] - before["machine"]) / (time.monotonic() - began) / os.cpu_count()


def controls(stage):
    """Runs that are wrong on purpose: each must be noticed. Says those that were not."""
    places = stage.middles
    workload = WORKLOADS["new-1k"]
    wrong = [
        (middle, what, place | change)
        for middle, place in places.items()
        for what, change in (("another server answers", {"server": "nobody"}), ("no such file", {"prefix": place["prefix"] + "x"}))
    ]
    wrong += [(middle, "one octet is wrong", place | {"file": "wrong"}) for middle, place in places.items()]
    if "local" in places:
        # The client gets what it wants, only not by the way that is measured.
        wrong += [(middle, "nothing is handed off", places["local"]) for middle in places if middle in HANDED_OFF]
        wrong += [("local", "all is handed off", places[middle]) for middle in places if middle in HANDED_OFF]
    runs = [(workload, *one) for one in wrong]
    upload = replace(WORKLOADS["upload-1g"], size=1 << 20)
    runs += [(upload, middle, "one octet of an upload is wrong", place | {"spoil": "524288"}) for middle, place in places.items()]
    unnoticed = [f"{middle}: {what}" for workload, middle, what, place in runs if not stage.run(workload, middle, 0.02, place)["wrong"]]
    return unnoticed, len(runs)


def wait_until_right(stage, seconds=20):
    """Links are used when they have been probed. Says what is wrong after that time, and with which middle."""
    end = time.monotonic() + seconds
    for middle in stage.middles:
        while True:
            run = stage.run(WORKLOADS["new-1k"], middle, 0.02)
            if not run["wrong"] and not run["mixed"]:
                break
            if time.monotonic() > end:
                return f"{middle}: {'; '.join(run['wrong'] + run['mixed'])}"
            time.sleep(0.2)
    return None


def all_rounds(stage, workloads, rounds, tell):
    """Runs everything `rounds` times, after a short run of each that only warms up. Yields runs."""
    middles = list(stage.middles)
    for workload in filter(lambda name: WORKLOADS[name].timed, workloads):
        for middle in middles:
            stage.run(WORKLOADS[workload], middle, min(0.2, stage.seconds))
    for number in range(rounds):
        for workload in workloads:
            # Whoever is first in one round is last in the next: nobody always follows the same one.
            turn = number % len(middles)
            for middle in middles[turn:] + middles[:turn]:
                for _ in range(ATTEMPTS):
                    run = stage.run(WORKLOADS[workload], middle, stage.seconds)
                    run["round"] = number + 1
                    tell(run)
                    yield run
                    if not run["mixed"]:
                        break
