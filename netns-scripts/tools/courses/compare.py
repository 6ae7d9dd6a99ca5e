"""Whether the courses of a group looked the same every way: to the client, to the server, and on the client's wire."""

import collections
import json

from table import COURSES, of_group

# What a loaded machine alone can cause: what is acknowledged late is repeated. (The segments of a connection stay in order:
# `keep_in_order` of lib/oracle.sh.) A window that closes says how the ends' applications were scheduled.
REPETITIONS = {"retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order", "lost_segment", "duplicate_ack"}
WINDOWS = {"window_full", "zero_window", "zero_window_probe", "zero_window_probe_ack"}
# How many more of a flag there may be than twice as many as without baton, on one connection: of repetitions a few and one in so many
# segments, and never more than a burst; of closed windows a share of the segments, since an application that reads slower than its
# peer writes closes one again and again. What befalls every connection is found by their number.
FEW_REPETITIONS, REPETITION_IN, MOST_REPETITIONS, MORE_OF_ANYTHING_ELSE = 10, 40, 80, 2
FEW_WINDOWS, WINDOW_IN = 60, 20


def load(files):
    lines = []
    for path in files.split(","):
        with open(path, encoding="utf-8") as file:
            lines += [json.loads(line) for line in file]
    return lines


def walked(ways):
    """What both ends saw, by course and way; the ports; and complaints about who answered."""
    seen, ports, complaints = {}, {}, []
    for way, (clients, servers, who) in ways.items():
        by_port = collections.defaultdict(list)
        for line in load(servers):
            by_port[line["port"]].append(line)
        for line in load(clients):
            name, answers = line["course"], by_port[line["port"]]
            if len(answers) > 1:
                complaints.append(f"{name}, {way}: {len(answers)} applications have seen it")
            server = answers[0] if len(answers) == 1 else {"server": None, "saw": {}}
            expected = "a" if who == "b" and not COURSES[name].hands_off else who
            for what, answered in (("answered", line["by"]), ("has it in its log", server["server"])):
                if answered not in (None, expected):
                    complaints.append(f"{name}, {way}: {answered} {what}, and not {expected}")
            if COURSES[name].server and (server["server"] is None or line["by"] is None and "status" in line["saw"]):
                complaints.append(f"{name}, {way}: nobody knows who answered")
            seen[name, way] = {"client": line["saw"], "server": server["saw"]}
            ports[name, way] = line["port"]
            for end, saw in seen[name, way].items():
                if "unexpected" in saw:
                    complaints.append(f"{name}, {way}, {end}: {saw['unexpected']}")
    return seen, ports, complaints


def differences(group, seen, ways):
    first, *others = ways
    for course in of_group(group):
        without = seen.get((course.name, first))
        if without is None:
            yield f"{course.name}: was not walked"
            continue
        for way in others:
            saw = seen.get((course.name, way), {"client": {}, "server": {}})
            for end in ("client", "server"):
                for what in sorted({*without[end], *saw[end]}):
                    one, other = without[end].get(what), saw[end].get(what)
                    known, _ = course.differences.get((end, what), ([one], None))
                    if other not in known:
                        yield f"{course.name}, {end}, {what}: {first} {one!r}, {way} {other!r}"


def ends_of(connection, course):
    """Who ended it how, and where its FIN was, unless that is known to differ."""
    ends, finished = set(), set()
    for step in connection["story"]:
        kind = step.partition("@")[0]
        if kind.endswith(":RST") and len(finished) == 2:
            # To an acknowledgement that the last one has overtaken: there is nothing any more that it could end.
            continue
        if kind.endswith(":FIN"):
            finished.add(kind)
        ends.add(step if kind.endswith(":FIN") and ("wire", "place of the FIN") not in course.differences else kind)
    return sorted(ends)


def allowed(flag, connection, without):
    flags = connection["flags"]
    who, _, kind = flag.partition(".")
    count = without.get(flag, 0)
    if kind == "keep_alive_ack":
        # Where both ends probe at the same time tshark calls it a duplicate.
        count = max(count, flags.get({"client": "server", "server": "client"}[who] + ".keep_alive", 0))
    segments = sum(connection["segments"].values())
    # (A single octet that is repeated tshark takes for a keep-alive probe.)
    if kind in REPETITIONS or kind == "keep_alive":
        return 2 * count + min(MOST_REPETITIONS, FEW_REPETITIONS + segments // REPETITION_IN)
    if kind in WINDOWS:
        return 2 * count + FEW_WINDOWS + segments // WINDOW_IN
    return 2 * count + MORE_OF_ANYTHING_ELSE


def repeats(connection):
    return sum(count for flag, count in connection["flags"].items() if flag.partition(".")[2] in REPETITIONS)


def differences_on_the_wire(group, wire, ports, ways, told):
    """Complaints; and in `told` how much of what is allowed for was needed."""
    with open(wire, encoding="utf-8") as file:
        connections = {connection["port"]: connection for connection in json.load(file)}
    first, *others = ways
    clean, repeating, most = 0, dict.fromkeys(ways, 0), (0, "none")
    for course in of_group(group):
        without = connections[ports[course.name, first]]
        clean += not repeats(without)
        for way in ways:
            of_this = connections[ports[course.name, way]]
            for wrong in of_this["wrong"]:
                yield f"{course.name}, {way}: {wrong}"
            if ends_of(of_this, course) != ends_of(without, course):
                yield f"{course.name}, {way}: it ends as {ends_of(of_this, course)}, and not as {ends_of(without, course)}"
            repeating[way] += repeats(of_this) > 0 and not repeats(without)
            for flag, count in of_this["flags"].items():
                if flag.partition(".")[2] in REPETITIONS:
                    most = max(most, (count - 2 * without["flags"].get(flag, 0), f"{course.name}, {way}, {flag}"))
                if count > allowed(flag, of_this, without["flags"]):
                    yield f"{course.name}, {way}: {flag} {count} times, {first} {without['flags'].get(flag, 0)} times"
    for way in others:
        if clean >= 5 and repeating[way] > clean // 2:
            yield f"{repeating[way]} of {clean} connections without any repetition {first} have some {way}"
    told.append(f"most repetitions beyond twice as many: {most[0]} ({most[1]})")
    told.append(f"of {clean} without any some have {', '.join(f'{repeating[way]} {way}' for way in others)}")


def compare(group, wire, *arguments):
    ways = {}
    for argument in arguments:
        way, _, rest = argument.partition("=")
        ways[way] = rest.split(":")
    seen, ports, complaints = walked(ways)
    complaints += differences(group, seen, ways)
    told = []
    if not complaints:
        complaints += differences_on_the_wire(group, wire, ports, ways, told)
    for complaint in complaints:
        print(complaint)
    for way, (clients, _, _) in ways.items():
        for line in load(clients):
            for what, value in line["told"].items():
                print(f"{line['course']}, {way}: {what}: {value}")
    print("; ".join([f"{len(of_group(group))} courses, {len(ways)} ways, {len(complaints)} differences", *told]))
    return 1 if complaints else 0


def doctor(wire, port, what):
    """Prints a report with one thing wrong with the connection from this port of the client."""
    with open(wire, encoding="utf-8") as file:
        connections = json.load(file)
    (connection,) = [connection for connection in connections if connection["port"] == int(port)]
    if what == "repeated":
        connection["flags"]["server.retransmission"] = 10_000
    elif what == "windows":
        connection["flags"]["server.zero_window"] = 10_000
    elif what == "repeated everywhere":
        for other in connections:
            other["flags"]["server.retransmission"] = 1 if other["port"] // 1000 == connection["port"] // 1000 else 0
    elif what == "checksum":
        connection["wrong"].append("frame 1, server: checksum of tcp is wrong")
    elif what == "timestamp":
        connection["wrong"].append("frame 1, server: timestamp goes back from 2 to 1")
    elif what == "reset":
        connection["story"] = ["client:RST@9" if step.startswith("client:FIN") else step for step in connection["story"]]
    print(json.dumps(connections))
