"""Which hosts can be reached: sends a datagram to a port of each ADDRESS where nobody listens.

  ask_closed_port.py ADDRESS...      prints one word for each: `refused` (it was reached), `silence`, or the error's name
"""

import errno
import socket
import sys
import time

CLOSED = 9
PATIENCE = 0.3


def ask(address):
    asking = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    asking.setblocking(False)
    try:
        asking.connect((address, CLOSED))
        asking.send(b"anybody there?")
    except OSError as error:
        return errno.errorcode[error.errno]
    return asking


def heard(asking):
    try:
        asking.recv(1)
    except ConnectionRefusedError:
        return "refused"
    except BlockingIOError:
        return "silence"
    except OSError as error:
        return errno.errorcode[error.errno]
    return "an answer"


answers = [ask(address) for address in sys.argv[1:]]
time.sleep(PATIENCE)
print(*(answer if isinstance(answer, str) else heard(answer) for answer in answers))
