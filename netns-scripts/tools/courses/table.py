"""All courses by name. Each is a pair of functions: what the client does, and what the server does after the request's head."""

COURSES = {}


def of_group(group):
    return [course for course in COURSES.values() if course.group == group]


class Course:
    def __init__(self, group, name, client, hands_off, above):
        self.group, self.name, self.client = group, name, client
        self.hands_off, self.above = hands_off, above
        self.server, self.differences = None, {}


# So far above the others are the client's ports of connections that something happens to on the way (lib/courses.sh).
LOST_FINS, CUT = 900, 500


def course(group, hands_off=True, above=0, differs=None):
    """Registers the client's half, which is a function of a `Client`. What follows by `@NAME.server` is the server's half.

    hands_off    whether the connection is handed off if the rules say so; else it never comes to a decision, or the default
                 decides, and the local server gets it
    above        LOST_FINS: the switch loses the first FIN of each side. CUT: soon it loses everything
    differs      what is known to differ from a server without baton, and why: {(end, what): (all that may be seen, reason)}
    """

    def register(client):
        made = Course(group, client.__name__, client, hands_off, above)
        made.differences = differs or {}
        COURSES[made.name] = made

        def register_server(server):
            made.server = server
            return server

        client.server = register_server
        return client

    return register
