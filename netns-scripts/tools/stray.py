"""Sends one TCP segment from a made-up source, port 80, with a made-up sequence number.

  stray.py SOURCE DESTINATION DESTINATION_PORT
"""

import random
import socket
import struct
import sys

source, destination, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
tcp = struct.pack("!HHIIBBHHH", 80, port, random.getrandbits(32), random.getrandbits(32), 5 << 4, 16, 1000, 0, 0)
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, socket.inet_aton(source), socket.inet_aton(destination))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(ip + tcp, (destination, 0))
