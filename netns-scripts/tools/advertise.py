"""A router that advertises itself on DEVICE, three times a second, as the default router for SECONDS (RFC 4861, section 4.2).

  advertise.py DEVICE SECONDS
"""

import socket
import struct
import sys
import time

ALL_NODES = "ff02::1"
ROUTER_ADVERTISEMENT = 134

device, lifetime = sys.argv[1], int(sys.argv[2])
router = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
# A hop limit of 255 shows that no router has been in between.
router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
while True:
    # The kernel fills in the checksum.
    advertisement = struct.pack("!BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, 64, 0, lifetime, 0, 0)
    router.sendto(advertisement, (ALL_NODES, 0, 0, socket.if_nametoindex(device)))
    time.sleep(1 / 3)
