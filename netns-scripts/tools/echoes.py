"""A network that delivers some frames once more: stands in the switch, and sends again what passed it.

  echoes.py ECHO...

An ECHO is KIND:PORT:MILLISECONDS: the first segment of that kind of the connection with this port of the client is sent again
so much later. KINDs are `syn`, `syn-ack`, `ack` (the client's first segment with nothing but an acknowledgement), `request`,
`answer` (the first of each), `fin` and `client-fin`. Frames must be plain: whoever sends cuts and completes them. Prints
`ready`, and on TERM one line: how many were sent again, and which never passed.
"""

import heapq
import select
import signal
import socket
import struct
import sys
import time

FIN, SYN, RST, ACK = 1, 2, 4, 16
OUTGOING = 4
ETH_P_ALL = 3
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23


def kinds_of(frame):
    """The client's port and the kinds a frame is of."""
    if frame[12:14] == b"\x08\x00" and frame[23] == 6:
        ip = 14 + (frame[14] & 15) * 4
        end = 14 + struct.unpack("!H", frame[16:18])[0]
    elif frame[12:14] == b"\x86\xdd" and frame[20] == 6:
        ip = 54
        end = 54 + struct.unpack("!H", frame[18:20])[0]
    else:
        return None, ()
    source, destination = struct.unpack("!HH", frame[ip:ip + 4])
    flags, payload = frame[ip + 13], end - ip - (frame[ip + 12] >> 4) * 4
    client = destination == 80
    if not client and source != 80:
        return None, ()
    kinds = []
    if flags & SYN:
        kinds.append("syn" if client and not flags & ACK else "syn-ack")
    elif not flags & RST:
        if flags & FIN:
            kinds.append("client-fin" if client else "fin")
        if payload:
            kinds.append("request" if client else "answer")
        elif client and not flags & FIN:
            kinds.append("ack")
    return (source if client else destination), kinds


def main():
    wanted = {}
    for echo in sys.argv[1:]:
        kind, port, delay = echo.split(":")
        wanted.setdefault((kind, int(port)), []).append(float(delay) / 1000)
    sockets = []
    for name in [name for _, name in socket.if_nameindex() if name not in ("lo", "br0")]:
        device = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        device.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        device.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        device.bind((name, ETH_P_ALL))
        device.setblocking(False)
        sockets.append(device)
    # The bridge knows where a frame with these addresses belongs.
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    out.bind(("br0", ETH_P_ALL))
    queue, number, sent = [], 0, 0

    def end(*_):
        missing = [f"{kind}:{port}" for kind, port in wanted] + [f"queued {len(queue)}"] * bool(queue)
        print(f"sent again: {sent}; never passed: {' '.join(missing) or 'none'}", flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    print("ready", flush=True)
    while True:
        wait = None if not queue else max(0, queue[0][0] - time.monotonic())
        readable, _, _ = select.select(sockets, [], [], wait)
        for device in readable:
            for _ in range(64):
                try:
                    frame = device.recv(1 << 17)
                except BlockingIOError:
                    break
                port, kinds = kinds_of(frame)
                for kind in kinds:
                    for delay in wanted.pop((kind, port), ()):
                        number += 1
                        heapq.heappush(queue, (time.monotonic() + delay, number, frame))
        while queue and queue[0][0] <= time.monotonic():
            out.send(heapq.heappop(queue)[2])
            sent += 1


main()
