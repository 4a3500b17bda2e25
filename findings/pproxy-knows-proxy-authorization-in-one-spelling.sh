#!/usr/bin/env bash
# pproxy finds the credentials of a client only under the name Proxy-Authorization, in exactly this spelling.
#
# Versions: pproxy 2.7.9.
# Behaviour: the same right credentials in a field `proxy-authorization` get 407, with CONNECT and with GET alike.
# Guess that was wrong: field names may leave in lower case, because they are alike in any case (RFC 9110 section 5.1).
# Output seen:
#   Proxy-Authorization: HTTP/1.1 200 Connection established
#   proxy-authorization: HTTP/1.1 407 Proxy Authentication Required
#
# Needs python3 with venv. Everything is on loopback, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q --disable-pip-version-check pproxy==2.7.9

cat >"$tmp/ask.py" <<'PY'
import base64, socket, sys

port = int(sys.argv[1])
target = socket.create_server(("127.0.0.1", 0))
credentials = base64.b64encode(b"app:word").decode()
for name in ("Proxy-Authorization", "proxy-authorization"):
    with socket.create_connection(("127.0.0.1", port), 5) as proxy:
        proxy.settimeout(5)
        place = f"127.0.0.1:{target.getsockname()[1]}"
        proxy.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{name}: Basic {credentials}\r\n\r\n".encode())
        print(f"{name}: {proxy.recv(4096).decode().splitlines()[0]}")
PY

port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
# With authtime, a client's address is known for a while after it has logged in once.
"$tmp/venv/bin/pproxy" -l "http://127.0.0.1:$port#app:word" --auth 0 >/dev/null 2>&1 &
server=$!
for _ in $(seq 100); do
  (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.1
done
told=$(python3 "$tmp/ask.py" "$port")
echo "$told"
[ "$told" = "Proxy-Authorization: HTTP/1.1 200 Connection established
proxy-authorization: HTTP/1.1 407 Proxy Authentication Required" ]
