"""Requests to nginx: kept-alive and pipelined ones, uploads with and without asking first, and answers that come early."""

import hashlib
import itertools
import subprocess
import time

from ends import content
from table import course

FILE, LARGE, TOO_LARGE = 300_000, 3_000_000, 3_000_000


def get(client, last=False, method="GET", host="stage", fields=(), path="picture"):
    lines = [f"{method} {client.path}{path} HTTP/1.1", f"Host: {host}", *fields, *(["Connection: close"] if last else [])]
    return "\r\n".join([*lines, "", ""]).encode()


def read_answer(client, what, has_body=True):
    """Notes an answer of nginx, by its length."""
    status, fields = client.read_head()
    body = client.read(int(fields["content-length"])) if has_body else b""
    client.saw[what] = [status, len(body), fields.get("connection"), hashlib.sha256(body).hexdigest()[:8]]


@course("http")
def one_after_the_other(client):
    client.connect()
    for number in range(5):
        client.send(get(client, last=number == 4))
        read_answer(client, f"answer {number}")
    client.read_to_end("then")
    client.close()


@course("http")
def pipelined_in_one_segment(client):
    client.connect()
    client.send(get(client) + get(client, method="HEAD") + get(client, last=True))
    for number in range(3):
        read_answer(client, f"answer {number}", has_body=number != 1)
    client.read_to_end("then")
    client.close()


@course("http")
def pipelined_across_segments(client):
    client.connect()
    requests = get(client) + get(client, fields=["Range: bytes=5-99"]) + get(client, path="nothing") + get(client, last=True)
    for start in range(0, len(requests), 37):
        client.send(requests[start : start + 37])
        time.sleep(0.02)
    for number in range(4):
        read_answer(client, f"answer {number}")
    client.read_to_end("then")
    client.close()


@course("http")
def old_protocol(client):
    client.connect()
    client.send(f"GET {client.path}picture HTTP/1.0\r\n\r\n".encode())
    read_answer(client, "answer")
    client.read_to_end("then")
    client.close()


def upload(client, octets, host="stage", fields=()):
    return get(client, True, "POST", host, [f"Content-Length: {octets}", *fields], "upload")


@course("http")
def upload_that_asks_first(client):
    client.connect()
    client.send(upload(client, LARGE, fields=["Expect: 100-continue"]))
    client.saw["interim"], _ = client.read_head()
    client.send_content(LARGE)
    read_hash(client)


def read_hash(client):
    status, fields = client.read_head()
    body = client.read(int(fields["content-length"]))
    client.saw["answer"] = [status, body.decode().strip() == hashlib.sha256(content(LARGE)).hexdigest()]
    client.read_to_end("then")
    client.close()


@course("http")
def upload_behind_the_head(client):
    # The head and the first octets of the body in one segment.
    client.connect()
    client.send(upload(client, LARGE) + content(LARGE))
    read_hash(client)


@course("http")
def chunked_upload(client):
    client.connect()
    client.send(get(client, True, "POST", "stage", ["Transfer-Encoding: chunked"], "upload"))
    sent, sizes = 0, itertools.cycle([1, 10, 3000, 65536, 500_000])
    while sent < LARGE:
        size = min(next(sizes), LARGE - sent)
        client.send(b"%x\r\n" % size + content(size, sent) + b"\r\n")
        sent += size
    client.send(b"0\r\n\r\n")
    read_hash(client)


@course("http")
def too_large_for_the_server(client):
    # nginx answers at once, finishes, and reads on so that the answer is not lost.
    client.connect()
    client.send(upload(client, TOO_LARGE, "limited"))
    client.note("upload", lambda: client.send_content(TOO_LARGE))
    client.finish()
    read_answer(client, "answer")
    client.read_to_end("then")
    client.close()


@course("http")
def too_large_and_the_client_waits(client):
    client.connect()
    client.send(upload(client, TOO_LARGE, "limited"))
    read_answer(client, "answer")
    client.saw["ended by"] = "the server" if client.receive() == b"" else "nobody"
    client.close()


def curl(client, *options):
    """What people use, from the port of this course."""
    url = f"http://{f'[{client.address}]' if ':' in client.address else client.address}{client.path}upload"
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", "30", "--local-port", str(client.source_port), "-D", "-", *options, url]
    client.port = client.source_port
    ended = subprocess.run(command, input=content(LARGE), capture_output=True, check=False)
    heads, _, body = ended.stdout.rpartition(b"\r\n\r\n")
    lines = heads.decode("latin-1").split("\r\n")
    client.saw["curl"] = [ended.returncode, [line for line in lines if line.startswith("HTTP/")]]
    client.saw["hash is right"] = body.decode("latin-1").strip() == hashlib.sha256(content(LARGE)).hexdigest()
    client.by = next((line.partition(": ")[2] for line in lines if line.lower().startswith("x-server:")), None)


@course("http")
def curl_asks_first(client):
    curl(client, "-X", "POST", "-T", "-", "-H", "Expect: 100-continue", "-H", "Transfer-Encoding:", "-H", f"Content-Length: {LARGE}")


@course("http", differs={("wire", "place of the FIN"): ([], "curl makes as many chunks as it gets by reads from its pipe")})
def curl_sends_chunks(client):
    curl(client, "-X", "POST", "-T", "-", "-H", "Transfer-Encoding: chunked")


@course("http")
def curl_is_refused_before_it_sends(client):
    curl(client, "-X", "POST", "-T", "-", "-H", "Host: limited", "-H", "Expect: 100-continue", "-H", "Transfer-Encoding:",
         "-H", f"Content-Length: {TOO_LARGE}")


@course("http", hands_off=False)
def not_http(client):
    client.connect()
    client.send(b"\x16\x03\x01 this is no request\r\n\r\n")
    client.saw["status"], fields = client.read_head()
    client.saw["read"] = len(client.read(int(fields["content-length"])))
    client.saw["end"] = client.receive() == b""
    client.close()
