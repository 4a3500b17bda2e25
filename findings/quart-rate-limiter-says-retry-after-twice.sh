#!/usr/bin/env bash
# The Python package quart-rate-limiter sends Retry-After on two lines, and a RateLimit-Reset that is not when it passes.
#
# Versions: quart-rate-limiter 0.12.1, quart 0.22.0, hypercorn 0.18.0.
# Behaviour: a refusal (429) has the field Retry-After twice: RFC 9110 section 5.3 allows that only for lists, and a client
#   that joins the lines reads "6, 6", which is no time. RateLimit-Reset beside it says when the whole quota is free again,
#   which is far later than the next request is allowed. A client that waits for it leaves most of its quota unused.
# Guess that was wrong: one refusal names one time.
# Output seen:
#   refused: Retry-After: 6 and 6, RateLimit-Reset: 30
#   after 6 s: 200
#
# Needs python3 with venv, and curl. Everything is on loopback, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" install -q --disable-pip-version-check quart-rate-limiter==0.12.1 quart==0.22.0 hypercorn==0.18.0
cat >"$tmp/app.py" <<'PY'
from datetime import timedelta
from quart import Quart
from quart_rate_limiter import RateLimiter, rate_limit

app = Quart(__name__)
RateLimiter(app)


@app.get("/")
@rate_limit(5, timedelta(seconds=30))
async def index():
    return "ok"
PY
cd "$tmp"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
venv/bin/hypercorn --bind "127.0.0.1:$port" --log-level ERROR app:app &
server=$!
curl -s --retry 50 --retry-delay 1 --retry-connrefused "http://127.0.0.1:$port/nothing" >/dev/null

ask() { curl -si "http://127.0.0.1:$port/" | tr -d '\r'; }
field() { grep -i "^$1:" | cut -d' ' -f2; }

for _ in 1 2 3 4 5; do
  ask >/dev/null
done
refusal=$(ask)
mapfile -t after < <(field retry-after <<<"$refusal")
reset=$(field ratelimit-reset <<<"$refusal")
echo "refused: Retry-After: ${after[0]-} and ${after[1]-}, RateLimit-Reset: $reset"
sleep "${after[0]}"
status=$(ask | head -1 | cut -d' ' -f2)
echo "after ${after[0]} s: $status"
[ "${#after[@]}" = 2 ] && [ "$status" = 200 ] && [ "$reset" -gt $((2 * after[0])) ]
