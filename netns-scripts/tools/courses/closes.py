"""Closes: either side first, both at once, and before there is a request."""

import socket
import time

from ends import TIME_WAIT, eventually
from table import LOST_FINS, course

LARGE = 4_000_000


@course("half-closed")
def client_finishes_and_reads_on(client):
    client.connect()
    client.send(client.head("client_finishes_and_reads_on"))
    time.sleep(0.1)
    client.finish()
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    client.close()


@client_finishes_and_reads_on.server
def _(server):
    # Data goes on to flow long after the client's FIN.
    server.read_to_end("after the request")
    server.answer()
    server.send_content(2_000_000, pieces=20, apart=0.1)
    server.send_content(LARGE)
    server.close()


@course("half-closed")
def fin_with_the_request(client):
    client.connect()
    client.option(socket.TCP_CORK, 1)
    client.send(client.head("fin_with_the_request"))
    client.finish()
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    client.close()


@fin_with_the_request.server
def _(server):
    server.read_to_end("after the request")
    server.answer()
    server.send_content(LARGE)
    server.close()


@course("half-closed")
def server_finishes_and_reads_on(client):
    client.connect()
    client.send(client.head("server_finishes_and_reads_on", "POST"))
    client.saw["status"], _ = client.read_head()
    client.read_to_end("answer")
    client.send_content(2_000_000, pieces=20, apart=0.1)
    client.send_content(LARGE)
    client.finish()
    client.close()


@server_finishes_and_reads_on.server
def _(server):
    server.answer()
    server.finish()
    server.read_to_end("upload")
    server.close()


@course("half-closed", above=LOST_FINS)
def both_finish_at_once(client):
    client.connect()
    client.send(client.head("both_finish_at_once"))
    client.saw["status"], _ = client.read_head()
    client.read_content("answer", 1000)
    client.finish()
    client.read_to_end("then")
    client.close()
    # Only a simultaneous close leaves TIME-WAIT at both ends (RFC 9293, section 3.6).
    client.saw["TIME-WAIT"] = eventually(2, lambda: TIME_WAIT in client.tcp_states())


@both_finish_at_once.server
def _(server):
    server.answer()
    server.send_content(1000)
    time.sleep(0.05)
    server.finish()
    server.read_to_end("then")
    server.close()
    server.saw["TIME-WAIT"] = eventually(2, lambda: TIME_WAIT in server.tcp_states())


@course("half-closed", hands_off=False)
def fin_before_the_request(client):
    client.connect()
    client.finish()
    client.read_to_end("answer")
    client.close()


@course("half-closed", hands_off=False)
def fin_in_the_request(client):
    client.connect()
    client.send(client.head("fin_in_the_request")[:-10])
    client.finish()
    client.read_to_end("answer")
    client.close()


@course("half-closed", hands_off=False)
def closed_before_the_request(client):
    client.connect()
    time.sleep(0.1)
    client.close()


@course("half-closed")
def fin_late_on_a_kept_connection(client):
    # An idle connection is closed by the client, as browsers do.
    client.connect()
    client.send(client.head("fin_late_on_a_kept_connection"))
    client.saw["status"], _ = client.read_head()
    client.read_content("answer", 1000)
    time.sleep(1)
    client.finish()
    client.read_to_end("then")
    client.close()


@fin_late_on_a_kept_connection.server
def _(server):
    server.answer()
    server.send_content(1000)
    server.read_to_end("then")
    server.close()


@course("half-closed")
def server_closes_a_kept_connection(client):
    client.connect()
    client.send(client.head("server_closes_a_kept_connection"))
    client.saw["status"], _ = client.read_head()
    client.read_content("answer", 1000)
    client.read_to_end("then")
    # What is sent to a closed end is answered with a RST.
    client.note("first write", lambda: client.send(b"late"))
    time.sleep(0.3)
    client.note("second write", lambda: client.send(b"late"))
    client.close()


@server_closes_a_kept_connection.server
def _(server):
    server.answer()
    server.send_content(1000)
    time.sleep(0.5)
    server.close()
