"""Sends data on a connection that no server has: what comes back, `reset` or `nothing` in two seconds.

  stray_ack.py ADDRESS PORT

The client's own kernel believes in the connection, by TCP_REPAIR.
"""

import socket
import sys

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
RECEIVE, SEND = 1, 2

address, port = sys.argv[1], int(sys.argv[2])
stray = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
stray.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
for queue, sequence in ((SEND, 1_000_000), (RECEIVE, 2_000_000)):
    stray.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
    stray.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, sequence)
stray.bind(("", 0))
stray.connect((address, port))
stray.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
stray.settimeout(2)
try:
    stray.sendall(b"NAME\n")
    stray.recv(1)
    print("an answer")
except ConnectionResetError:
    print("reset")
except TimeoutError:
    print("nothing")
