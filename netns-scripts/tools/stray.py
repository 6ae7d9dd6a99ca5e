"""Sends one TCP segment from a made-up source, port 80, with a made-up sequence number.

  stray.py SOURCE DESTINATION DESTINATION_PORT
"""

import random
import socket
import struct
import sys

source, destination, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
tcp = struct.pack("!HHIIBBHHH", 80, port, random.getrandbits(32), random.getrandbits(32), 5 << 4, 16, 1000, 0, 0)
family = socket.AF_INET6 if ":" in destination else socket.AF_INET
addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
if family == socket.AF_INET:
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + addresses
else:
    ip = struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + addresses
raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(ip + tcp, (destination, 0))
