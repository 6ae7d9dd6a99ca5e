"""An application whose listen backlog is full: listens on PORT, never accepts, and connects to itself until the kernel
takes no more. Prints `full` when it is.

  full_backlog.py PORT
"""

import socket
import struct
import sys
import time


def waiting_and_limit(listener):
    """For a listener, `tcpi_unacked` is the length of the accept queue and `tcpi_sacked` its limit."""
    return struct.unpack_from("=II", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)


def main():
    port = int(sys.argv[1])
    listener = socket.create_server(("", port), family=socket.AF_INET6, backlog=1, dualstack_ipv6=True)
    connections = []
    while True:
        waiting, limit = waiting_and_limit(listener)
        if waiting > limit:
            break
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", port))
        connections.append(connection)
        time.sleep(0.02)
    print("full", flush=True)
    time.sleep(3600)


main()
