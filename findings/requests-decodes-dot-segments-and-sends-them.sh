#!/usr/bin/env bash
# The Python package requests decodes %2e%2e in a path and sends the dot segments that come of it.
#
# Versions: requests 2.34.2, urllib3 2.8.0.
# Behaviour: requests resolves the dot segments of a URL first and decodes escapes of unreserved characters afterwards
#   (requote_uri). So "/a/%2e%2e/b" leaves as "/a/../b", which no client should send (RFC 3986 section 6.2.2.3: decoded
#   first, resolved last, it is "/b"). urllib of the same Python sends "/a/%2e%2e/b". So one URL is three paths on the wire,
#   and a rule about paths that stands before a server has to know all of them. An encoded slash is left as it is.
# Guess that was wrong: a client of HTTP resolves dot segments or leaves them encoded, but never makes new ones.
# Output seen:
#   urllib:   /a/%2e%2e/b /a/x%2Fy
#   requests: /a/../b /a/x%2Fy
#
# Needs python3 with venv. Everything is on loopback, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q --disable-pip-version-check requests==2.34.2 urllib3==2.8.0
cat >"$tmp/ask.py" <<'PY'
import http.server
import threading
import urllib.request

import requests

seen = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        seen.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
urls = [f"http://127.0.0.1:{server.server_port}{path}" for path in ("/a/%2e%2e/b", "/a/x%2Fy")]
plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
session = requests.Session()
session.trust_env = False
for url in urls:
    plain.open(url).close()
for url in urls:
    session.get(url).close()
print("urllib:  ", *seen[:2], sep=" ")
print("requests:", *seen[2:], sep=" ")
assert seen == ["/a/%2e%2e/b", "/a/x%2Fy", "/a/../b", "/a/x%2Fy"], seen
PY
"$tmp/venv/bin/python" "$tmp/ask.py"
