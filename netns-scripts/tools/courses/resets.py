"""Resets by either side, at each state of the connection."""

import os
import signal
import socket
import struct
import time

from ends import FIN_WAIT_2, TIME_WAIT, TIMEOUT, eventually
from table import course

LARGE = 4_000_000
UNSEEN = ([None], "no application sees a connection before it is decided")


@course("resets", hands_off=False, differs={("server", "head"): UNSEEN})
def reset_after_the_handshake(client):
    client.connect()
    time.sleep(0.1)
    client.abort()


@course("resets", hands_off=False, differs={("server", "head"): UNSEEN})
def reset_in_the_request(client):
    client.connect()
    client.send(client.head("reset_in_the_request")[:-10])
    time.sleep(0.02)
    client.abort()


@course("resets", hands_off=False, differs={("server", "head"): UNSEEN})
def reset_in_a_slow_request(client):
    # So slow that it has been acknowledged, which parks it.
    client.connect()
    client.send(client.head("reset_in_a_slow_request")[:-10])
    time.sleep(0.3)
    client.abort()


@course("resets")
def reset_in_mid_answer(client):
    client.connect(receive_buffer=65536)
    client.send(client.head("reset_in_mid_answer"))
    client.saw["status"], _ = client.read_head()
    client.read_content("answer", 100_000)
    client.abort()


@reset_in_mid_answer.server
def _(server):
    server.answer()
    server.note("sending", lambda: server.send_content(LARGE))
    # The error was told once; what comes now is a broken pipe.
    server.note("sending again", lambda: server.send(b"more"))
    server.close()


@course("resets")
def closed_with_unread_octets(client):
    client.connect(receive_buffer=65536)
    client.send(client.head("closed_with_unread_octets"))
    client.saw["status"], _ = client.read_head()
    client.read_content("answer", 100_000)
    client.close()


@closed_with_unread_octets.server
def _(server):
    server.answer()
    server.note("sending", lambda: server.send_content(LARGE))
    server.close()


@course("resets")
def closed_with_unread_octets_after_fin(client):
    client.connect(receive_buffer=65536)
    client.send(client.head("closed_with_unread_octets_after_fin"))
    client.finish()
    client.saw["status"], _ = client.read_head()
    client.read_content("answer", 100_000)
    client.close()


@closed_with_unread_octets_after_fin.server
def _(server):
    server.read_to_end("after the request")
    server.answer()
    server.note("sending", lambda: server.send_content(LARGE))
    server.close()


@course("resets")
def reset_in_mid_upload(client):
    client.connect()
    client.send(client.head("reset_in_mid_upload", "POST"))
    client.saw["status"], _ = client.read_head()
    client.send_content(500_000)
    client.abort_acknowledged()


@reset_in_mid_upload.server
def _(server):
    server.answer()
    server.read_to_end("upload")
    server.close()


@course("resets")
def reset_when_idle(client):
    client.connect()
    client.send(client.head("reset_when_idle"))
    client.saw["status"], _ = client.read_head()
    time.sleep(0.5)
    client.abort()


@reset_when_idle.server
def _(server):
    server.answer()
    server.read_to_end("then")
    server.close()


@course("resets")
def reset_after_the_servers_fin(client):
    client.connect()
    client.send(client.head("reset_after_the_servers_fin"))
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    time.sleep(0.1)
    client.abort()


@reset_after_the_servers_fin.server
def _(server):
    server.answer()
    server.finish()
    server.read_to_end("then")
    server.close()


@course("resets")
def reset_of_an_abandoned_connection(client):
    # The server's application has closed; its kernel waits for the client's FIN, and gets a RST.
    client.connect()
    client.send(client.head("reset_of_an_abandoned_connection"))
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    time.sleep(0.3)
    client.abort()


@reset_of_an_abandoned_connection.server
def _(server):
    server.answer()
    server.close()
    server.saw["FIN-WAIT-2"] = eventually(2, lambda: FIN_WAIT_2 in server.tcp_states())
    server.saw["gone"] = eventually(3, lambda: not server.tcp_states())


@course("resets")
def reset_in_time_wait(client):
    client.connect()
    client.send(client.head("reset_in_time_wait"))
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    # After the FIN that close() sends.
    number = (client.next_octet() + 1) & 0xFFFFFFFF
    client.close()
    time.sleep(0.5)
    send_reset(client, number)


@reset_in_time_wait.server
def _(server):
    server.answer()
    server.send_content(1000)
    server.close()
    server.saw["TIME-WAIT"] = eventually(2, lambda: TIME_WAIT in server.tcp_states())
    # Linux ends TIME-WAIT on a RST unless net.ipv4.tcp_rfc1337 is set.
    server.saw["gone"] = eventually(3, lambda: not server.tcp_states())


def send_reset(client, number):
    family = socket.AF_INET6 if ":" in client.address else socket.AF_INET
    raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
    raw.connect((client.address, 0))
    header = struct.pack("!HHIIBBHHH", client.port, 80, number, 0, 5 << 4, 4, 0, 0, 0)
    own, other = (socket.inet_pton(family, address) for address in (raw.getsockname()[0], client.address))
    pseudo = own + other + struct.pack("!II", len(header), socket.IPPROTO_TCP)
    total = sum(struct.unpack(f"!{len(pseudo + header) // 2}H", pseudo + header))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    raw.send(header[:16] + struct.pack("!H", ~total & 0xFFFF) + header[18:])
    raw.close()


@course("resets")
def server_aborts_before_the_answer(client):
    client.connect()
    client.send(client.head("server_aborts_before_the_answer"))
    client.read_to_end("answer")
    client.note("writing", lambda: client.send(b"more"))
    client.close()


@server_aborts_before_the_answer.server
def _(server):
    time.sleep(0.1)
    server.abort()


@course("resets")
def server_aborts_in_mid_answer(client):
    client.connect(receive_buffer=65536)
    client.send(client.head("server_aborts_in_mid_answer"))
    client.saw["status"], _ = client.read_head()
    client.read_content("answer", 100_000)
    client.send(b"go")
    time.sleep(1)
    client.read_to_end("then", start=100_000, counts=False)
    client.note("writing", lambda: client.send(b"more"))
    client.close()


@server_aborts_in_mid_answer.server
def _(server):
    server.answer()
    server.socket.settimeout(0.3)
    server.note("sending", lambda: server.send_content(LARGE))
    server.socket.settimeout(TIMEOUT)
    server.read(2)
    server.abort()


@course("resets")
def server_aborts_after_the_clients_fin(client):
    client.connect()
    client.send(client.head("server_aborts_after_the_clients_fin"))
    client.finish()
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    client.close()


@server_aborts_after_the_clients_fin.server
def _(server):
    server.read_to_end("after the request")
    server.answer()
    server.send_content(1000)
    server.abort_acknowledged()


@course("resets")
def server_aborts_after_its_own_fin(client):
    client.connect()
    client.send(client.head("server_aborts_after_its_own_fin"))
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    time.sleep(0.5)
    client.note("writing", lambda: client.send(b"more"))
    client.note("writing again", lambda: client.send(b"more"))
    client.close()


@server_aborts_after_its_own_fin.server
def _(server):
    server.answer()
    server.finish()
    server.abort_acknowledged()


@course("resets")
def server_closes_with_unread_octets(client):
    # As a server does that refuses an upload it has not read.
    client.connect()
    client.send(client.head("server_closes_with_unread_octets", "POST"))
    client.saw["interim"], _ = client.read_head()
    client.send_content(30_000)
    time.sleep(1)
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    client.note("writing", lambda: client.send(b"more"))
    client.close()


@server_closes_with_unread_octets.server
def _(server):
    server.answer("100 Continue")
    server.saw["unread"] = eventually(2, lambda: server.unread_in_kernel() == 30_000)
    server.answer("413 Content Too Large")
    server.send_content(1000)
    server.close()


@course("resets")
def server_answers_early_and_drains(client):
    # RFC 9112, section 9.6: the server finishes, and reads on until the client has seen the answer.
    client.connect()
    client.send(client.head("server_answers_early_and_drains", "POST", fields=["Content-Length: 4000000"]))
    client.note("upload", lambda: client.send_content(LARGE))
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    client.close()


@server_answers_early_and_drains.server
def _(server):
    server.answer("413 Content Too Large")
    server.send_content(1000)
    server.finish()
    server.read_to_end("upload")
    server.close()


def after_the_request(client, delay, finishes):
    """A reset some time after the request: while it is examined, offered, prepared, delivered, or answered."""
    client.connect()
    client.send(client.head("reset_when_idle"))
    if finishes:
        client.finish()
    until = time.monotonic() + delay
    while time.monotonic() < until:
        os.sched_yield()
    client.abort()


def while_offered(client, process):
    client.connect()
    os.kill(process, signal.SIGSTOP)
    try:
        client.send(client.head("reset_when_idle"))
        time.sleep(0.15)
        client.abort()
        time.sleep(0.05)
    finally:
        os.kill(process, signal.SIGCONT)
