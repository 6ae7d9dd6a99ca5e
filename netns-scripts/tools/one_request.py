"""One HTTP request over a socket of its own, and the way it ends. Prints one line: status, X-Server, X-Port, octets of the
body, how the connection ended for the client, and the client's port.

  one_request.py ADDRESS PORT PATH [--silence SECONDS] [--end END] [--from PORT]

END: `server` (default: the server closes first), `half` (the client closes its direction right behind the request, and
reads on), `reset` (the client reads some of the answer and resets the connection).
"""

import argparse
import socket
import struct
import time

TIMEOUT = 20


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("address")
    arguments.add_argument("port", type=int)
    arguments.add_argument("path")
    arguments.add_argument("--silence", type=float, default=0)
    arguments.add_argument("--end", choices=["server", "half", "reset"], default="server")
    arguments.add_argument("--from", dest="source", type=int, default=0)
    arguments = arguments.parse_args()

    client = socket.socket(socket.AF_INET6 if ":" in arguments.address else socket.AF_INET)
    client.settimeout(TIMEOUT)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("", arguments.source))
    client.connect((arguments.address, arguments.port))
    time.sleep(arguments.silence)
    client.sendall(f"GET {arguments.path} HTTP/1.1\r\nHost: stage\r\nConnection: close\r\n\r\n".encode())
    if arguments.end == "half":
        client.shutdown(socket.SHUT_WR)
    received, end = bytearray(), "closed"
    try:
        while piece := client.recv(1 << 18):
            received += piece
            if arguments.end == "reset" and len(received) > 100_000:
                # Lingering for no time: close() sends a RST (socket(7)).
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end = "reset"
                break
    except OSError as error:
        end = str(error)
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    own = client.getsockname()[1]
    client.close()
    words = [status.split(" ")[1] if " " in status else "none", fields.get("x-server"), fields.get("x-port")]
    print(*words, len(body), end.replace(" ", "_"), own)


main()
