"""Ends that do not read: windows that close, probes, and windows that open again."""

import os
import socket
import time

from table import course

LARGE = 8_000_000
STOP = float(os.environ.get("STOPS_READING_FOR", "10"))


@course("windows")
def client_stops_reading(client):
    client.connect(receive_buffer=300_000)
    client.send(client.head("client_stops_reading"))
    client.saw["status"], _ = client.read_head()
    client.read_content("at first", 1_000_000)
    time.sleep(STOP)
    client.saw["then"] = len(client.read(LARGE - 1_000_000))
    client.read_to_end("rest")
    client.close()


@client_stops_reading.server
def _(server):
    server.answer()
    began = time.monotonic()
    server.note("sending", lambda: server.send_content(LARGE))
    server.saw["was kept waiting"] = time.monotonic() - began > STOP - 1
    server.close()


@course("windows")
def client_reads_slowly(client):
    # Little by little: the window is opened by whole segments (RFC 9293, section 3.8.6.2.2).
    client.connect(receive_buffer=20_000)
    client.send(client.head("client_reads_slowly"))
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer", most=500, pause=0.01)
    client.close()


@client_reads_slowly.server
def _(server):
    server.answer()
    server.note("sending", lambda: server.send_content(300_000))
    server.close()


@course("windows")
def server_stops_reading(client):
    client.connect()
    client.send(client.head("server_stops_reading", "POST"))
    client.saw["status"], _ = client.read_head()
    began = time.monotonic()
    client.note("upload", lambda: client.send_content(LARGE))
    client.saw["was kept waiting"] = time.monotonic() - began > STOP - 1
    client.finish()
    client.read_to_end("answer")
    client.close()


@server_stops_reading.server
def _(server):
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 300_000)
    server.answer()
    server.saw["at first"] = len(server.read(500_000))
    time.sleep(STOP)
    server.saw["then"] = len(server.read(LARGE - 500_000))
    server.read_to_end("rest")
    server.send(b"")
    server.close()


@course("windows")
def server_reads_slowly(client):
    client.connect()
    client.send(client.head("server_reads_slowly", "POST"))
    client.saw["status"], _ = client.read_head()
    client.note("upload", lambda: client.send_content(3_000_000))
    client.finish()
    client.read_to_end("answer")
    client.close()


@server_reads_slowly.server
def _(server):
    server.answer()
    server.read_to_end("upload", most=10_000, pause=0.01)
    server.close()


@course("windows")
def server_stops_reading_at_once(client):
    # The window closes on the first flight's heels.
    client.connect()
    client.send(client.head("server_stops_reading_at_once", "POST") + client_first())
    client.note("upload", lambda: client.send_content(LARGE))
    client.finish()
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    client.close()


def client_first():
    return b"f" * 3000


@server_stops_reading_at_once.server
def _(server):
    time.sleep(STOP / 2)
    server.saw["first"] = server.read(3000) == client_first()
    server.read_to_end("upload")
    server.answer()
    server.close()
