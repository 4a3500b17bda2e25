"""every-tenth.py PORT STATUS [FIELD]: every tenth answer is an error, whatever the rate; FIELD is NAME:VALUE."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

port, status, *fields = sys.argv[1:]
requests = count(1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        failed = next(requests) % 10 == 0
        self.send_response(int(status) if failed else 200)
        for field in fields if failed else []:
            self.send_header(*field.split(":"))
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
