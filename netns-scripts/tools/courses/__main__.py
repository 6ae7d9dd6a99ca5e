"""Courses of connections: the same client code against servers with and without a handoff, and what both ends saw.

  courses serve NAME LOG                        the server, on port 80 of both families; a JSON object a connection
  courses run GROUP ADDRESS PREFIX PORT [ONLY]  all courses of a group at once, to ADDRESS, under paths that begin with PREFIX,
                                                from source ports from PORT on; a JSON object a course
  courses sweep ADDRESS PREFIX MILLISECONDS TIMES
                                                that many connections, one after the other, each reset some time after its
                                                request, up to MILLISECONDS
  courses reset-while-offered ADDRESS PREFIX PROCESS
                                                one connection that is reset while PROCESS, which is asked, is stopped
  courses content OCTETS                        what the courses send
  courses handed-off GROUP                      how many of them are handed off where the rules say so
  courses compare GROUP WIRE WAY=CLIENT:SERVER:WHO...
                                                whether all ways saw the same: a report of tools/oracle.py, files of `run`, files
                                                of `serve` (joined by commas) and who has to have answered. The first is the
                                                one without baton.
  courses doctor WIRE PORT WHAT                 the report with one thing wrong with the connection from PORT, for controls

Every course is a pair of functions in one of the modules beside this one.
"""

import json
import socket
import sys
import threading
import traceback

import closes  # noqa: F401 (they register themselves)
import long_lived  # noqa: F401
import requests_to_nginx  # noqa: F401
import resets
import windows  # noqa: F401
from compare import compare, doctor
from ends import Client, Server, content, name_of
from table import COURSES, of_group

WRITING = threading.Lock()


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
        source = int(port) + number + course.above
        threads.append(threading.Thread(target=run_one, args=(course, Client(address, prefix, source))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def sweep(address, prefix, milliseconds, times):
    for number in range(int(times)):
        resets.after_the_request(Client(address, prefix, 0), float(milliseconds) / 1000 * number / int(times), number % 3 == 2)


def main():
    command, *arguments = sys.argv[1:]
    if command == "serve":
        serve(*arguments)
    elif command == "run":
        run(*arguments)
    elif command == "sweep":
        sweep(*arguments)
    elif command == "reset-while-offered":
        resets.while_offered(Client(*arguments[:2], 0), int(arguments[2]))
    elif command == "content":
        sys.stdout.buffer.write(content(int(arguments[0])))
    elif command == "handed-off":
        print(sum(course.hands_off for course in of_group(arguments[0])))
    elif command == "compare":
        sys.exit(compare(*arguments))
    elif command == "doctor":
        doctor(*arguments)
    else:
        sys.exit(__doc__)


main()
