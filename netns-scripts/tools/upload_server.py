"""The application behind nginx that receives uploads: answers every POST or PUT with the SHA-256 of the body.

  upload_server.py SOCKET
"""

import hashlib
import os
import socketserver
import sys
from http.server import BaseHTTPRequestHandler


class Upload(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        digest = hashlib.sha256()
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while length := int(self.rfile.readline().split(b";")[0], 16):
                digest.update(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
        else:
            missing = int(self.headers.get("Content-Length", 0))
            while missing:
                piece = self.rfile.read(min(missing, 1 << 20))
                if not piece:
                    return
                digest.update(piece)
                missing -= len(piece)
        answer = digest.hexdigest().encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST

    def address_string(self):
        return "nginx"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


if os.path.exists(sys.argv[1]):
    os.unlink(sys.argv[1])
Server(sys.argv[1], Upload).serve_forever()
