#!/usr/bin/env bash
# libcurl asks an HTTP proxy for UDP (CONNECT-UDP, RFC 9298) before it asks for TCP, as soon as HTTP/3 is allowed.
#
# Versions: pycurl 7.49.0 with libcurl 8.23.0, ngtcp2 1.25.0, nghttp3 1.18.0.
# Behaviour: with CURL_HTTP_VERSION_3 the first request to an http:// proxy is a GET for /.well-known/masque/udp/HOST/PORT/ at the
#   proxy's own address, in absolute form. A proxy that forwards what it gets would forward it to itself. When that is refused
#   the client sends CONNECT, and the user sees nothing of the first. With HTTP/3 alone it fails there. Over a SOCKS5 proxy
#   it never sends a datagram: with fallback it connects by TCP at once, with HTTP/3 alone it gives up before it connects.
# Guess that was wrong: a QUIC client behind an HTTP proxy goes straight to TCP.
# Output seen:
#   http, HTTP/3 or older: GET /.well-known/masque/udp/127.0.0.1/PORT/, then CONNECT; 0 datagrams
#   http, HTTP/3 alone: GET /.well-known/masque/udp/127.0.0.1/PORT/; 0 datagrams
#   socks5h, HTTP/3 or older: SOCKS5; 0 datagrams
#   socks5h, HTTP/3 alone: nothing; 0 datagrams
#
# Needs python3 with venv. Everything is on loopback, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q --disable-pip-version-check pycurl==7.49.0
cat >"$tmp/ask.py" <<'PY'
import socket
import threading

import pycurl

origin = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
origin.bind(("127.0.0.1", 0))
origin.settimeout(0.3)
port = origin.getsockname()[1]


def refuse(listener, seen):
    """Writes down what a client begins with, and refuses it."""
    while True:
        connection, _ = listener.accept()
        head = connection.recv(65536)
        if head[:1] == b"\x05":
            seen.append("SOCKS5")
            connection.sendall(b"\x05\xff")
        else:
            method, target = head.split(b" ", 2)[:2]
            path = target.decode().split("/", 3)[-1] if method == b"GET" else ""
            seen.append("GET /" + path.replace(str(port), "PORT") if path else method.decode())
            connection.sendall(b"HTTP/1.1 501 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.close()


for scheme in ("http", "socks5h"):
    for name, version in (("HTTP/3 or older", pycurl.CURL_HTTP_VERSION_3), ("HTTP/3 alone", 31)):
        seen = []
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=refuse, args=(listener, seen), daemon=True).start()
        client = pycurl.Curl()
        client.setopt(client.URL, f"https://127.0.0.1:{port}/")
        client.setopt(client.PROXY, f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
        client.setopt(client.HTTP_VERSION, version)
        client.setopt(client.TIMEOUT, 10)
        try:
            client.perform()
        except pycurl.error:
            pass
        datagrams = 0
        try:
            while origin.recv(2048):
                datagrams += 1
        except TimeoutError:
            pass
        print(f"{scheme}, {name}: {', then '.join(seen) or 'nothing'}; {datagrams} datagrams")
PY
"$tmp/venv/bin/python" "$tmp/ask.py" | tee "$tmp/seen"
diff - "$tmp/seen" <<'SEEN'
http, HTTP/3 or older: GET /.well-known/masque/udp/127.0.0.1/PORT/, then CONNECT; 0 datagrams
http, HTTP/3 alone: GET /.well-known/masque/udp/127.0.0.1/PORT/; 0 datagrams
socks5h, HTTP/3 or older: SOCKS5; 0 datagrams
socks5h, HTTP/3 alone: nothing; 0 datagrams
SEEN
