"""Courses of connections: the same client code against servers with and without a handoff, and what both ends saw.

  courses serve NAME LOG                        the server, on port 80 of both families; a JSON object a connection
  courses run GROUP ADDRESS PREFIX PORT [ONLY]  all courses of a group at once, to ADDRESS, under paths that begin with PREFIX,
                                                from source ports from PORT on; a JSON object a course
  courses sweep ADDRESS PREFIX MILLISECONDS TIMES
                                                that many connections, one after the other, each reset some time after its
                                                request, up to MILLISECONDS
  courses handed-off GROUP                      how many of them are handed off where the rules say so
  courses compare GROUP WAY=CLIENT:SERVER:WHO... whether all ways saw the same: files of `run`, files of `serve` (joined by
                                                commas) and who has to have answered. The first is the one without baton.

Every course is a pair of functions in one of the modules beside this one.
"""

import json
import socket
import sys
import threading
import traceback

import closes  # noqa: F401 (they register themselves)
import long_lived  # noqa: F401
import resets
import windows  # noqa: F401
from ends import Client, Server, name_of
from table import COURSES

WRITING = threading.Lock()
# So far above the others are the ports of connections that lose their first FINs (lib/courses.sh).
LOST_FINS = 900


def say(file, what):
    with WRITING:
        print(json.dumps(what), file=file, flush=True)


# --- the server ----------------------------------------------------------------------------------------------------


def serve_one(connected, name, log):
    server, course = Server(connected, name), None
    try:
        try:
            request, *lines = server.read_until(b"\r\n\r\n").decode("latin-1").strip().split("\r\n")
            server.fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            course = request.split()[1].rpartition("/")[2]
        except EOFError as error:
            server.saw["head"] = str(error)
        except OSError as error:
            server.saw["head"] = name_of(error)
        if course:
            COURSES[course].server(server)
    except (OSError, EOFError) as error:
        server.saw["unexpected"] = f"{type(error).__name__}: {error}"
    except Exception:
        server.saw["unexpected"] = traceback.format_exc()
    finally:
        connected.close()
    say(log, {"port": server.port, "course": course, "server": name, "saw": server.saw})


def serve(name, path):
    log = open(path, "a", encoding="utf-8")
    listener = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)
    while True:
        connected, _ = listener.accept()
        threading.Thread(target=serve_one, args=(connected, name, log), daemon=True).start()


# --- the client ----------------------------------------------------------------------------------------------------


def run_one(course, client):
    try:
        course.client(client)
    except (OSError, EOFError) as error:
        client.saw["unexpected"] = f"{type(error).__name__}: {error}"
    except Exception:
        client.saw["unexpected"] = traceback.format_exc()
    say(sys.stdout, {"course": course.name, "port": client.port, "by": client.by, "saw": client.saw, "told": client.told})


def run(group, address, prefix, port, only=""):
    threads = []
    for number, course in enumerate(of_group(group)):
        if only and course.name not in only.split(","):
            continue
        source = int(port) + number + (LOST_FINS if course.lost_fins else 0)
        threads.append(threading.Thread(target=run_one, args=(course, Client(address, prefix, source))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def sweep(address, prefix, milliseconds, times):
    for number in range(int(times)):
        resets.sweep(Client(address, prefix), float(milliseconds) / 1000 * number / int(times))


# --- the comparison ------------------------------------------------------------------------------------------------


def of_group(group):
    return [course for course in COURSES.values() if course.group == group]


def load(files):
    lines = []
    for path in files.split(","):
        with open(path, encoding="utf-8") as file:
            lines += [json.loads(line) for line in file]
    return lines


def complaints_of(group, ways):
    """Yields what is not as it has to be."""
    seen = {}
    for way, (clients, servers, who) in ways.items():
        by_port = {}
        for line in load(servers):
            by_port.setdefault(line["port"], []).append(line)
        for line in load(clients):
            answers = by_port.get(line["port"], [])
            server = answers[0] if len(answers) == 1 else {"server": None, "saw": {}}
            if len(answers) > 1:
                yield f"{line['course']}, {way}: {len(answers)} applications have seen it"
            name = line["course"]
            expected = who if COURSES[name].hands_off or who != "b" else "a"
            for what, answered in (("answered", line["by"]), ("has it in its log", server["server"])):
                if answered is not None and answered != expected:
                    yield f"{name}, {way}: {answered} {what}, and not {expected}"
            if COURSES[name].server and (line["by"] is None and "status" in line["saw"] or server["server"] is None):
                yield f"{name}, {way}: nobody knows who answered"
            seen[name, way] = {"client": line["saw"], "server": server["saw"]}
            for end, saw in seen[name, way].items():
                if "unexpected" in saw:
                    yield f"{name}, {way}, {end}: {saw['unexpected']}"
    first = next(iter(ways))
    for course in of_group(group):
        without = seen.get((course.name, first))
        if without is None:
            yield f"{course.name}: was not walked"
            continue
        for way in list(ways)[1:]:
            saw = seen.get((course.name, way), {"client": {}, "server": {}})
            for end in ("client", "server"):
                for what in sorted({*without[end], *saw[end]}):
                    one, other = without[end].get(what), saw[end].get(what)
                    known, _ = course.differences.get((end, what), (one, None))
                    if other != known:
                        yield f"{course.name}, {end}, {what}: {first} {one!r}, {way} {other!r}"


def compare(group, arguments):
    ways = {}
    for argument in arguments:
        way, _, rest = argument.partition("=")
        ways[way] = rest.split(":")
    complaints = list(complaints_of(group, ways))
    for complaint in complaints:
        print(complaint)
    for way, (clients, _, _) in ways.items():
        for line in load(clients):
            if line["told"]:
                print(f"{line['course']}, {way}: {line['told']}")
    print(f"{len(of_group(group))} courses, {len(ways)} ways, {len(complaints)} differences")
    return 1 if complaints else 0


def main():
    command, *arguments = sys.argv[1:]
    if command == "serve":
        serve(*arguments)
    elif command == "run":
        run(*arguments)
    elif command == "sweep":
        sweep(*arguments)
    elif command == "handed-off":
        print(sum(course.hands_off for course in of_group(arguments[0])))
    elif command == "compare":
        sys.exit(compare(arguments[0], arguments[1:]))
    else:
        sys.exit(__doc__)


main()
