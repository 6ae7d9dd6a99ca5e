"""A wire that is long and not good: carries frames between two devices that it makes, each frame later, and not each as it was.

  shaper.py NEAR_NAMESPACE/DEVICE FAR_NAMESPACE/DEVICE --delay MILLISECONDS [OPTION...]

  --delay MS         of every frame; for one direction, so that a round trip takes twice as long
  --jitter MS        up to this much more, which changes from frame to frame; frames stay in order
  --loss PERCENT     of the frames with TCP, as all of the following
  --burst FRAMES     they are lost in runs of this many on average (1)
  --burst-ends MS    a run of losses does not outlast a pause of this length (50): what is repeated after a time-out, alone on the
                     wire, would else be lost with the probability of the frame after a lost one, over and over
  --duplicate PERCENT  arrive twice
  --reorder PERCENT  arrive later by --reorder-by MS (2): behind those that were sent after them
  --corrupt PERCENT  have one bit of the TCP header or payload changed, and so a wrong checksum
  --seed N           of the chances (1)
  --tell FILE        one line for each frame that is lost or corrupted: when, what, which way, whose, its seq and length

Each option has one value for both directions or two, as in `--loss 5,0`: first what leaves the near device.

Both devices are TAPs; they live as long as this process. A netem for kernels without one: each direction has a queue of its
own, ordered by the moment at which a frame is due. Prints `ready`, and on TERM or INT what it did, by direction.
"""

import argparse
import contextlib
import ctypes
import errno
import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
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


def is_tcp(frame):
    return (frame[12:14] == b"\x08\x00" and frame[23] == 6) or (frame[12:14] == b"\x86\xdd" and frame[20] == 6)


def name_of(frame):
    """The segment, as tcpdump writes it: 10.77.0.100.39250 > 10.77.0.1.80 seq 2431499672 ack 1 length 1392."""
    is_v4 = frame[12] == 8
    tcp = 14 + 4 * (frame[14] & 15) if is_v4 else 54
    end = 14 + (frame[16] << 8 | frame[17]) if is_v4 else 54 + (frame[18] << 8 | frame[19])
    family, at, size = (socket.AF_INET, 26, 4) if is_v4 else (socket.AF_INET6, 22, 16)
    source, destination = (socket.inet_ntop(family, bytes(frame[at + i * size : at + (i + 1) * size])) for i in range(2))
    source_port, destination_port, seq, ack = struct.unpack_from("!HHII", frame, tcp)
    length = end - tcp - 4 * (frame[tcp + 12] >> 4)
    return f"{source}.{source_port} > {destination}.{destination_port} seq {seq} ack {ack} length {length}"


class Direction:
    """Frames on their way from one device to the other."""

    def __init__(self, source, sink, options, seed, told=None):
        self.source, self.sink, self.told = source, sink, told
        self.delay, self.jitter, self.reorder_by = options["delay"] / 1000, options["jitter"] / 1000, options["reorder_by"] / 1000
        self.duplicate, self.reorder, self.corrupt = (options[name] / 100 for name in ("duplicate", "reorder", "corrupt"))
        # Two states (Gilbert): a run of losses ends with `leaves` and begins with `enters`, so that `loss` of all are lost.
        loss = options["loss"] / 100
        self.leaves = 1 / max(1, options["burst"])
        self.enters = self.leaves * loss / (1 - loss)
        self.in_burst, self.burst_ends, self.last = False, options["burst_ends"] / 1000, 0
        self.random = random.Random(seed)
        self.queue, self.number, self.last_due = [], 0, 0
        self.refused = 0
        self.did = {"carried": 0, "lost": 0, "duplicated": 0, "reordered": 0, "corrupted": 0, "late": 0}

    def is_lost(self):
        if self.leaves == 1:
            # Runs of one: each frame for itself.
            return self.enters > 0 and self.random.random() < self.enters / (1 + self.enters)
        now = time.monotonic()
        self.in_burst &= now - self.last < self.burst_ends
        self.last = now
        self.in_burst = self.random.random() < (1 - self.leaves if self.in_burst else self.enters)
        return self.in_burst

    def tell(self, what, frame):
        if self.told:
            # A full disk shall not cut the wire.
            with contextlib.suppress(OSError):
                print(f"{time.time():.6f}", what, name_of(frame), file=self.told)

    def take(self):
        """Takes in what the source has; nothing may be there."""
        for _ in range(BURST):
            try:
                frame = os.read(self.source, FRAME_MAX)
            except BlockingIOError:
                return
            due = time.monotonic() + self.delay
            if self.jitter:
                due, without = max(self.last_due, due + self.random.random() * self.jitter), due
                self.last_due = due
                self.did["late"] += due - without > self.jitter / 4
            if not is_tcp(frame):
                self.put(due, frame)
                continue
            if self.is_lost():
                self.did["lost"] += 1
                self.tell("lost", frame)
                continue
            if self.corrupt and self.random.random() < self.corrupt:
                self.did["corrupted"] += 1
                self.tell("corrupted", frame)
                frame = bytearray(frame)
                first = 34 if frame[12] == 8 else 54
                # Padding of a short frame is nobody's.
                end = 14 + (frame[16] << 8 | frame[17]) if frame[12] == 8 else 54 + (frame[18] << 8 | frame[19])
                frame[self.random.randrange(first, end)] ^= 1 << self.random.randrange(8)
            if self.reorder and self.random.random() < self.reorder:
                self.did["reordered"] += 1
                due += self.reorder_by
            self.put(due, frame)
            if self.duplicate and self.random.random() < self.duplicate:
                self.did["duplicated"] += 1
                self.put(due, frame)

    def put(self, due, frame):
        self.number += 1
        heapq.heappush(self.queue, (due, self.number, frame))

    def give(self):
        """Lets go of what is due."""
        queue = self.queue
        while queue and queue[0][0] <= time.monotonic():
            _, _, frame = heapq.heappop(queue)
            try:
                os.write(self.sink, frame)
                self.did["carried"] += 1
            except OSError as error:
                # A device that is not up yet refuses with EIO. Anything else is a loss that nobody asked for.
                self.refused += error.errno != errno.EIO


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("near")
    parser.add_argument("far")
    defaults = {"delay": "0", "jitter": "0", "loss": "0", "burst": "1", "burst-ends": "50"}
    defaults |= {"duplicate": "0", "reorder": "0", "reorder-by": "2", "corrupt": "0"}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", default=value)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tell", type=argparse.FileType("w", 1))
    options = parser.parse_args()
    near, far = open_tap(options.near), open_tap(options.far)
    directions = []
    for index, (source, sink) in enumerate(((near, far), (far, near))):
        values = {}
        for name in defaults:
            name = name.replace("-", "_")
            both = getattr(options, name).split(",")
            values[name] = float(both[index % len(both)])
        directions.append(Direction(source, sink, values, options.seed * 2 + index, options.tell))

    def end(*_):
        did = {what: [d.did[what] for d in directions] for what in directions[0].did}
        print(json.dumps({**did, "refused": sum(d.refused for d in directions)}), flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    print("ready", flush=True)
    while True:
        due = min((d.queue[0][0] for d in directions if d.queue), default=None)
        wait = None if due is None else max(0, due - time.monotonic())
        # Not epoll, nor poll: their time-outs are whole milliseconds.
        readable, _, _ = select.select([near, far], [], [], wait)
        for direction in directions:
            if direction.source in readable:
                direction.take()
        for direction in directions:
            direction.give()


main()
