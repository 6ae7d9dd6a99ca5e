"""Opens connections one after the other, asks for one file on each, says which server answered, and keeps them open.

keeps_open.py ADDRESS PORT PATH COUNT

SIGUSR1 closes those that b answers. Prints `open` and `closed` when it has done so.
"""

import signal
import socket
import sys


def opened(address, port, path):
    connection = socket.create_connection((address, port), timeout=5)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = connection.recv(65536)
        if not piece:
            sys.exit("closed before an answer")
        answer += piece
    head, body = answer.split(b"\r\n\r\n", 1)
    fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
    while len(body) < int(fields[b"content-length"]):
        body += connection.recv(65536)
    return fields[b"x-server"].decode(), connection


def main():
    address, port, path, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    connections = []
    for _ in range(count):
        server, connection = opened(address, port, path)
        print("X-Server:", server, flush=True)
        connections.append((server, connection))
    print("open", flush=True)
    signal.sigwait([signal.SIGUSR1])
    for server, connection in connections:
        if server == "b":
            connection.close()
    print("closed", flush=True)
    signal.pause()


main()
