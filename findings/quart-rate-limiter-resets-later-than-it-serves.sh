#!/usr/bin/env bash
# The PyPI package quart-rate-limiter says two times when it refuses, and serves after the shorter one.
#
# Versions: quart-rate-limiter 0.12.1, Quart 0.22.0.
# Behaviour: its limits are buckets that drain (GCRA). RateLimit-Reset is the time until the bucket is empty, which grows with
#   each request, and Retry-After the time until one more may go; the latter comes on two lines. A client that keeps to the
#   reset of a refusal waits five times too long at a limit of 5, and a hundred times at one of 100.
# Guess that was wrong: a refusal's reset is when requests pass again.
# Output seen:
#   200, RateLimit-Reset 1
#   200, RateLimit-Reset 2
#   200, RateLimit-Reset 3
#   200, RateLimit-Reset 4
#   200, RateLimit-Reset 5
#   429, RateLimit-Reset 5, Retry-After 1 and 1
#   200 after 1.0 s
#
# Needs python3 with venv. Nothing leaves the process but for the installation, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/venv"
"$tmp/venv/bin/pip" --quiet --disable-pip-version-check install quart-rate-limiter==0.12.1 Quart==0.22.0
cat >"$tmp/app.py" <<'PYTHON'
import asyncio
import time
from datetime import timedelta

from quart import Quart
from quart_rate_limiter import RateLimiter, rate_limit

app = Quart(__name__)
RateLimiter(app)


@app.get("/")
@rate_limit(5, timedelta(seconds=5))
async def index():
    return "ok"


async def main():
    client = app.test_client()
    for _ in range(5):
        answer = await client.get("/")
        print(f"{answer.status_code}, RateLimit-Reset {answer.headers['RateLimit-Reset']}")
    refused = time.monotonic()
    answer = await client.get("/")
    reset = answer.headers["RateLimit-Reset"]
    waits = answer.headers.getlist("Retry-After")
    print(f"{answer.status_code}, RateLimit-Reset {reset}, Retry-After {' and '.join(waits)}")
    assert (answer.status_code, reset, waits) == (429, "5", ["1", "1"]), "it says something else now"
    while (await client.get("/")).status_code == 429:
        assert time.monotonic() - refused < 10, "it does not serve again"
        await asyncio.sleep(0.02)
    waited = time.monotonic() - refused
    print(f"200 after {waited:.1f} s")
    assert waited < 3, "it keeps to the reset now"


asyncio.run(main())
PYTHON
"$tmp/venv/bin/python" "$tmp/app.py"
