"""Connections that live long and say little: idle ones, keep-alive probes, trickles, websockets."""

import base64
import hashlib
import os
import select
import socket
import struct
import time

from ends import name_of
from table import CUT, course

LONG = float(os.environ.get("IDLE_FOR", "12"))


def two_answers(client, name, wait):
    client.send(client.head(name))
    client.saw["status"], _ = client.read_head()
    client.read_content("first", 1000)
    wait()
    client.send(b"again\r\n\r\n")
    client.read_content("second", 500_000)
    client.read_to_end("then")
    client.close()


def answer_twice(server):
    server.answer()
    server.send_content(1000)
    server.saw["asked again"] = server.read_until(b"\r\n\r\n").decode()
    server.send_content(500_000)
    server.close()


@course("long")
def idle_and_goes_on(client):
    client.connect()
    two_answers(client, "idle_and_goes_on", lambda: time.sleep(LONG))


idle_and_goes_on.server(answer_twice)


@course("long")
def keep_alive_probes_of_the_client(client):
    # Were they not answered, the connection would end after four seconds.
    client.connect()
    client.keep_alive(1, 3)
    two_answers(client, "keep_alive_probes_of_the_client", lambda: time.sleep(LONG))


keep_alive_probes_of_the_client.server(answer_twice)


@course("long")
def keep_alive_probes_of_the_server(client):
    client.connect()
    two_answers(client, "keep_alive_probes_of_the_server", lambda: time.sleep(LONG))


@keep_alive_probes_of_the_server.server
def _(server):
    server.keep_alive(1, 3)
    answer_twice(server)


@course("long")
def user_timeout_of_both(client):
    # RFC 5482: with probes answered it does not end what is idle.
    client.connect()
    client.keep_alive(1, 3)
    client.option(socket.TCP_USER_TIMEOUT, 2500)
    two_answers(client, "user_timeout_of_both", lambda: time.sleep(LONG))


@user_timeout_of_both.server
def _(server):
    server.keep_alive(1, 3)
    server.option(socket.TCP_USER_TIMEOUT, 2500)
    answer_twice(server)


def until_it_is_cut(end, what):
    """Notes how the end learns that the other one is not there any more."""
    try:
        while end.receive():
            pass
        end.saw[what] = "EOF"
    except OSError as error:
        end.saw[what] = name_of(error)


@course("long", above=CUT)
def keep_alive_probes_unanswered(client):
    client.connect()
    client.keep_alive(1, 3)
    client.send(client.head("keep_alive_probes_unanswered"))
    client.saw["status"], _ = client.read_head()
    until_it_is_cut(client, "then")
    client.close()


@keep_alive_probes_unanswered.server
def _(server):
    server.keep_alive(1, 3)
    server.answer()
    until_it_is_cut(server, "then")
    server.close()


if "UNTIL_THE_KERNEL_IS_ASKED" in os.environ:

    @course("long", above=CUT)
    def user_timeout_when_cut(client):
        # Ends without a packet: baton learns it when it asks the kernel, once a minute.
        client.connect()
        client.option(socket.TCP_USER_TIMEOUT, 2500)
        client.send(client.head("user_timeout_when_cut"))
        client.saw["status"], _ = client.read_head()
        write_until_it_is_cut(client)
        client.close()

    @user_timeout_when_cut.server
    def _(server):
        server.option(socket.TCP_USER_TIMEOUT, 2500)
        server.answer()
        write_until_it_is_cut(server)
        server.close()


def write_until_it_is_cut(end):
    try:
        while True:
            end.send(b"x" * 100)
            time.sleep(0.2)
    except OSError as error:
        end.saw["then"] = name_of(error)


@course("long")
def idle_before_the_answer(client):
    # A long poll.
    client.connect()
    client.send(client.head("idle_before_the_answer"))
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    client.close()


@idle_before_the_answer.server
def _(server):
    time.sleep(LONG)
    server.answer()
    server.send_content(500_000)
    server.close()


@course("long")
def probes_before_the_request(client):
    # A silent client is parked after 2.5 s, then somebody must answer its probes.
    client.connect()
    client.keep_alive(1, 2)
    time.sleep(7)
    client.send(client.head("probes_before_the_request"))
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    client.close()


@probes_before_the_request.server
def _(server):
    server.answer()
    server.send_content(500_000)
    server.close()


@course("long")
def events_trickle(client):
    # Server-sent events.
    client.connect()
    client.send(client.head("events_trickle", fields=["Accept: text/event-stream"]))
    client.saw["status"], _ = client.read_head()
    for number in range(int(LONG / 0.25)):
        if client.read_until(b"\n\n") != b"data: %d\n\n" % number:
            client.saw["wrong"] = number
    client.saw["events"] = number + 1
    client.read_to_end("then")
    client.close()


@events_trickle.server
def _(server):
    server.answer(fields=["Content-Type: text/event-stream"])
    for number in range(int(LONG / 0.25)):
        server.send(b"data: %d\n\n" % number)
        time.sleep(0.25)
    server.close()


@course("long")
def without_length(client):
    client.connect()
    client.send(client.head("without_length", version="1.0"))
    client.saw["status"], fields = client.read_head()
    client.saw["length"] = fields.get("content-length")
    client.read_to_end("answer")
    client.close()


@without_length.server
def _(server):
    server.answer()
    server.send_content(3_000_000)
    server.close()


def octet_by_octet(client, name, pause):
    client.connect()
    for octet in client.head(name, version="1.0"):
        client.send(bytes([octet]))
        time.sleep(pause)
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    client.close()


def answer_once(server):
    server.answer()
    server.send_content(500_000)
    server.close()


@course("long")
def slow_request(client):
    octet_by_octet(client, "slow_request", 0.06)


slow_request.server(answer_once)


@course("long", hands_off=False)
def request_slower_than_the_timeout(client):
    # 5 s from the first octet `inspect_timeout` is over, and the default decides.
    octet_by_octet(client, "request_slower_than_the_timeout", 0.2)


request_slower_than_the_timeout.server(answer_once)


@course("long")
def trickle_without_delay(client):
    client.connect()
    client.send(client.head("trickle_without_delay", "POST"))
    client.saw["status"], _ = client.read_head()
    pieces = 0
    for number in range(100):
        client.send(b"%02d" % number)
        pieces += client.read(2) == b"%02d" % number
        time.sleep(0.01)
    client.saw["echoed"] = pieces
    client.finish()
    client.read_to_end("then")
    client.close()


@trickle_without_delay.server
def _(server):
    server.answer()
    while piece := server.receive(2):
        server.send(piece)
    server.close()


@course("long")
def trickle_with_cork(client):
    client.connect()
    client.send(client.head("trickle_with_cork"))
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    client.close()


@trickle_with_cork.server
def _(server):
    server.answer()
    server.option(socket.TCP_CORK, 1)
    server.send_content(5_000, pieces=100, apart=0.01)
    server.option(socket.TCP_CORK, 0)
    server.send(b"")
    server.close()


# --- urgent octets -------------------------------------------------------------------------------------------------


def send_urgent(end):
    end.send(b"before")
    end.socket.send(b"!", socket.MSG_OOB)
    end.send(b"after")


def read_urgent(end):
    """The urgent octet is out of the stream, and its place in it is where it was."""
    select.select([], [], [end.socket], 5)
    end.saw["urgent"] = end.read_urgent()
    end.saw["stream"] = end.read(11).decode()


@course("long")
def urgent_both_ways(client):
    client.connect()
    client.send(client.head("urgent_both_ways"))
    client.saw["status"], _ = client.read_head()
    time.sleep(0.2)
    send_urgent(client)
    read_urgent(client)
    client.close()


@urgent_both_ways.server
def _(server):
    server.answer()
    read_urgent(server)
    send_urgent(server)
    server.read_to_end("then")
    server.close()


@course("long", hands_off=False)
def urgent_in_the_request(client):
    client.connect()
    head = client.head("urgent_in_the_request")
    # The octet that is urgent is not a part of the stream; an odd client, but the stream has to stay what it is.
    client.socket.send(head + b"beforX"[:6], socket.MSG_OOB)
    client.saw["status"], _ = client.read_head()
    client.saw["echo"] = client.read(6).decode()
    client.close()


@urgent_in_the_request.server
def _(server):
    server.saw["stream"] = server.read(5).decode()
    server.saw["urgent"] = server.read_urgent()
    server.answer()
    server.send(b"thanks")
    server.finish()
    server.read_to_end("then")
    server.close()


# --- what the client's kernel says ---------------------------------------------------------------------------------

# struct tcp_info, linux/tcp.h.
OPTIONS = {1: "timestamps", 2: "sack", 4: "wscale", 8: "ecn"}


# Less than the link's 1500, so that an upload fits into the overlay's packets between servers; of IPv4 and IPv6.
LOWERED_MSS = ([1392, 1352], "the MSS is lowered: uploads are encapsulated between servers")


@course("long", differs={("client", "largest segment it sends"): LOWERED_MSS})
def promises_kept(client):
    client.connect()
    client.send(client.head("promises_kept"))
    client.saw["status"], _ = client.read_head()
    client.read_content("answer", 3_000_000)
    time.sleep(0.3)
    said = client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    state, _, _, _, _, options, scales, _ = struct.unpack("8B", said[:8])
    rto, _, snd_mss, rcv_mss = struct.unpack("4I", said[8:24])
    pmtu, _, rtt, rttvar, _, cwnd, advmss = struct.unpack("7I", said[60:88])
    client.saw["options"] = [name for bit, name in OPTIONS.items() if options & bit]
    client.saw["state, scales"] = [state, scales & 15, scales >> 4]
    client.saw["mss it announced, path mtu"] = [advmss, pmtu]
    client.saw["largest segment it got"] = rcv_mss
    client.saw["largest segment it sends"] = snd_mss
    client.told["congestion window"] = cwnd
    client.told["round trip, its variation, time-out (us)"] = [rtt, rttvar, rto]
    client.close()


@promises_kept.server
def _(server):
    server.answer()
    server.send_content(3_000_000)
    server.read_to_end("then")
    server.close()


# --- websockets (RFC 6455) -----------------------------------------------------------------------------------------

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def key_for(nonce):
    return base64.b64encode(hashlib.sha1((nonce + MAGIC).encode()).digest()).decode()


def frame(kind, payload, mask=b""):
    head = bytes([0x80 | kind])
    flag = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([flag | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack("!BH", flag | 126, len(payload))
    else:
        head += struct.pack("!BQ", flag | 127, len(payload))
    return head + mask + (masked(payload, mask) if mask else payload)


def masked(payload, mask):
    stream = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
    return (int.from_bytes(payload, "big") ^ stream).to_bytes(len(payload), "big")


def read_frame(end):
    first, second = end.read(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", end.read(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", end.read(8))
    mask = end.read(4) if second & 0x80 else b""
    payload = end.read(length)
    return first & 15, masked(payload, mask) if mask else payload


@course("long")
def websocket(client):
    client.connect()
    nonce = base64.b64encode(os.urandom(16)).decode()
    fields = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {nonce}", "Sec-WebSocket-Version: 13"]
    client.send(client.head("websocket", fields=fields))
    client.saw["status"], said = client.read_head()
    client.saw["key"] = said.get("sec-websocket-accept") == key_for(nonce)
    until, echoed, pushed, pinged = time.monotonic() + LONG, 0, 0, 0
    sizes = [5, 125, 126, 70_000, 1, 65535, 300_000]
    sent = 0
    while time.monotonic() < until:
        said = os.urandom(sizes[sent % len(sizes)])
        client.send(frame(BINARY, said, os.urandom(4)))
        sent += 1
        while True:
            kind, payload = read_frame(client)
            if kind == PING:
                client.send(frame(PONG, payload, os.urandom(4)))
                pinged += 1
            elif kind == TEXT:
                pushed += 1
            else:
                break
        echoed += (kind, payload) == (BINARY, said)
        time.sleep(LONG / 15)
    client.saw["every message came back"] = echoed == sent
    client.saw["was pinged, was told something"] = [pinged > 0, pushed > 0]
    client.send(frame(CLOSE, b"\x03\xe8", os.urandom(4)))
    kind = PING
    while kind != CLOSE:
        kind, payload = read_frame(client)
    client.saw["closed"] = payload.hex()
    client.read_to_end("then")
    client.close()


@websocket.server
def _(server):
    nonce = server.fields["sec-websocket-key"]
    fields = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {key_for(nonce)}"]
    server.answer("101 Switching Protocols", fields)
    pinged = time.monotonic()
    ponged = 0
    while True:
        # Silence, until there is a frame.
        while not select.select([server.socket], [], [], 0.5)[0]:
            if time.monotonic() - pinged > LONG / 8:
                pinged = time.monotonic()
                server.send(frame(PING, b"still there?") + frame(TEXT, b"news"))
        kind, payload = read_frame(server)
        if kind == CLOSE:
            server.send(frame(CLOSE, payload))
            break
        if kind == PONG:
            ponged += payload == b"still there?"
        else:
            server.send(frame(kind, payload))
    server.saw["pongs"] = ponged > 0
    server.finish()
    server.read_to_end("then")
    server.close()
