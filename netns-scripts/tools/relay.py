"""A plain relay, as any proxy is: accepts on PORT and copies octets to and from TARGET, which is ADDRESS:PORT or [ADDRESS]:PORT.

  relay.py PORT TARGET
"""

import socket
import sys
import threading


def copy(source, sink):
    try:
        while octets := source.recv(1 << 18):
            sink.sendall(octets)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client, target):
    with client, socket.create_connection(target) as server:
        upward = threading.Thread(target=copy, args=(client, server), daemon=True)
        upward.start()
        copy(server, client)
        upward.join()


def main():
    address, port = sys.argv[2].rsplit(":", 1)
    listener = socket.create_server(("", int(sys.argv[1])), family=socket.AF_INET6, backlog=128, dualstack_ipv6=True)
    print("listening", flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, (address.strip("[]"), int(port))), daemon=True).start()


main()
