"""A wire that is long: carries frames between two devices that it makes, each frame later by a fixed time.

  shaper.py NAMESPACE/DEVICE NAMESPACE/DEVICE --delay MILLISECONDS

Both devices are TAPs; they live as long as this process. `--delay` is for one direction, so that a round trip takes twice
as long. A netem for kernels without one: each direction has a queue of its own, ordered by the moment at which a frame is
due, so that whatever changes that moment (jitter), the frame's number in the queue (reordering, duplicates) or whether it
enters it (loss) has its place in `Direction.take`. Prints `ready`, and on TERM or INT what it carried.
"""

import argparse
import ctypes
import errno
import fcntl
import heapq
import json
import os
import select
import signal
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
CLONE_NEWNET = 0x40000000
FRAME_MAX = 65536
# Frames read from one device before the other and those that are due get their turn.
BURST = 64


def enter(namespace):
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        sys.exit(f"cannot enter {namespace}: {os.strerror(ctypes.get_errno())}")
    os.close(descriptor)


def open_tap(place):
    namespace, name = place.split("/")
    enter(namespace)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


class Direction:
    """Frames on their way from one device to the other."""

    def __init__(self, source, sink, delay):
        self.source, self.sink, self.delay = source, sink, delay
        self.queue, self.number = [], 0
        self.carried = self.refused = 0

    def take(self):
        """Takes in what the source has; False when there was nothing."""
        for _ in range(BURST):
            try:
                frame = os.read(self.source, FRAME_MAX)
            except BlockingIOError:
                return
            self.number += 1
            heapq.heappush(self.queue, (time.monotonic() + self.delay, self.number, frame))

    def give(self):
        """Lets go of what is due."""
        queue = self.queue
        while queue and queue[0][0] <= time.monotonic():
            _, _, frame = heapq.heappop(queue)
            try:
                os.write(self.sink, frame)
                self.carried += 1
            except OSError as error:
                # A device that is not up yet refuses with EIO. Anything else is a loss that nobody asked for.
                self.refused += error.errno != errno.EIO


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("near")
    parser.add_argument("far")
    parser.add_argument("--delay", type=float, required=True)
    options = parser.parse_args()
    one, other = open_tap(options.near), open_tap(options.far)
    delay = options.delay / 1000
    directions = [Direction(one, other, delay), Direction(other, one, delay)]

    def end(*_):
        print(json.dumps({"carried": [d.carried for d in directions], "refused": sum(d.refused for d in directions)}), flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    print("ready", flush=True)
    while True:
        due = min((d.queue[0][0] for d in directions if d.queue), default=None)
        wait = None if due is None else max(0, due - time.monotonic())
        # Not epoll, nor poll: their time-outs are whole milliseconds.
        readable, _, _ = select.select([one, other], [], [], wait)
        for direction in directions:
            if direction.source in readable:
                direction.take()
        for direction in directions:
            direction.give()


main()
