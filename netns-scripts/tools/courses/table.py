"""All courses by name. Each is a pair of functions: what the client does, and what the server does after the request's head."""

COURSES = {}


def of_group(group):
    return [course for course in COURSES.values() if course.group == group]


class Course:
    def __init__(self, group, name, client, hands_off, lost_fins):
        self.group, self.name, self.client = group, name, client
        self.hands_off, self.lost_fins = hands_off, lost_fins
        self.server, self.differences = None, {}


def course(group, hands_off=True, lost_fins=False, differs=None):
    """Registers the client's half, which is a function of a `Client`. What follows by `@NAME.server` is the server's half.

    hands_off    whether the connection is handed off if the rules say so; else it never comes to a decision, or the default
                 decides, and the local server gets it
    lost_fins    the switch loses the first FIN of each side (see lib/courses.sh)
    differs      what is known to differ from a server without baton, and why: {(end, what): (all that may be seen, reason)}
    """

    def register(client):
        made = Course(group, client.__name__, client, hands_off, lost_fins)
        made.differences = differs or {}
        COURSES[made.name] = made

        def register_server(server):
            made.server = server
            return server

        client.server = register_server
        return client

    return register
