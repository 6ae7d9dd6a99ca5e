"""A client that takes its time: connects, waits, asks, and measures from its first byte to the last of the answer.

  slow.py ADDRESS PATH [--wait SECONDS] [--times N [--apart SECONDS]] [--upload BYTES] [--head BYTES]
          [--keep SECONDS]

Prints one JSON object per connection: port, answered_by, octets, seconds. With --keep the connection stays open that long
after the answer, so that somebody can look at the server's socket.
"""

import argparse
import json
import socket
import threading
import time


def ask(options):
    client = socket.create_connection((options.address, 80), timeout=60)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    time.sleep(options.wait)
    method = "POST" if options.upload else "GET"
    # Fields of 1,000 octets each.
    fields = "".join(f"X-Field-{number:03}: {'x' * 985}\r\n" for number in range(options.head // 1000))
    head = f"{method} {options.path} HTTP/1.1\r\nHost: stage\r\nContent-Length: {options.upload}\r\n{fields}\r\n".encode()
    began = time.monotonic()
    client.sendall(head)
    if options.upload:
        client.sendall(bytes(options.upload))
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = client.recv(1 << 18)
        if not piece:
            raise SystemExit("closed early")
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:])
    left, octets = int(headers["content-length"]) - len(body), len(body)
    while left > 0:
        piece = client.recv(1 << 18)
        if not piece:
            raise SystemExit("closed early")
        left -= len(piece)
        octets += len(piece)
    seconds = time.monotonic() - began
    port = client.getsockname()[1]
    print(json.dumps({"port": port, "answered_by": headers.get("x-server", "nobody"), "octets": octets, "seconds": round(seconds, 4)}), flush=True)
    time.sleep(options.keep)
    client.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("path")
    parser.add_argument("--wait", type=float, default=0)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--apart", type=float, default=0)
    parser.add_argument("--upload", type=int, default=0)
    parser.add_argument("--head", type=int, default=0)
    parser.add_argument("--keep", type=float, default=0)
    options = parser.parse_args()
    clients = []
    for _ in range(options.times):
        clients.append(threading.Thread(target=ask, args=(options,)))
        clients[-1].start()
        if options.apart:
            time.sleep(options.apart)
        else:
            clients[-1].join()
    for client in clients:
        client.join()


main()
