"""An HTTP server that limits its callers as known services do, and counts what it accepts and refuses.

    limited.py MODE KEY=VALUE...

prints its port, then serves until its standard input ends. `GET /told` answers, uncounted, with JSON: `accepted`,
`refused`, and `requests`, a list of [seconds since the epoch, status, path].

Modes, with what they read:
  github    limit, window, search: a fixed window for each resource (paths below /search are `search`), x-ratelimit-*
            with the reset in epoch seconds, 403 at zero; burst: more requests than that within a second are refused with
            403 and Retry-After, the secondary limit
  datagov   limit, window: the two counters of api-umbrella (the window before counts for the part of it that the last
            window still covers), X-RateLimit-Limit and -Remaining, 429 with Retry-After and OVER_RATE_LIMIT
  draft     limit, window: a fixed window, RateLimit and RateLimit-Policy, 429 with Retry-After
  plain     rate, burst: a token bucket, 429 and not a word more
  saying    status, field...: every answer has this status and these fields; a field is NAME:VALUE
"""

import asyncio
import json
import math
import sys
import time
from email.utils import formatdate


class GitHub:
    def __init__(self, limit="60", window="60", search="30", burst="0"):
        self.limits = {"core": int(limit), "search": int(search)}
        self.window = int(window)
        self.burst = int(burst)
        self.used = {}
        self.recent = []

    def answer(self, path, now):
        resource = "search" if path.startswith("/search") else "core"
        limit = self.limits[resource]
        used, reset = self.used.get(resource, (0, 0))
        if now >= reset:
            used, reset = 0, math.floor(now / self.window + 1) * self.window
        self.recent = [moment for moment in self.recent if moment > now - 1] + [now]
        status, more = 200, []
        if self.burst and len(self.recent) > self.burst:
            status, more = 403, [("retry-after", "1")]
        elif used >= limit:
            status = 403
        else:
            used += 1
        self.used[resource] = (used, reset)
        fields = [
            ("x-ratelimit-limit", limit),
            ("x-ratelimit-remaining", limit - used),
            ("x-ratelimit-used", used),
            ("x-ratelimit-reset", reset),
            ("x-ratelimit-resource", resource),
            ("x-github-request-id", "0"),
        ]
        return status, fields + more, {"message": "API rate limit exceeded"} if status != 200 else {}


class DataGov:
    """rate_limit_counters_store.lua of NREL/api-umbrella, one limit of one key.

    Its window is an hour and it counts in whole seconds. A shorter window stands for the hour: seconds shrink with it,
    and the window, which a caller knows of the hour by X-Api-Umbrella-Request-ID, is told in RateLimit-Policy."""

    def __init__(self, limit="1000", window="3600"):
        self.limit = int(limit)
        self.window = float(window)
        self.counts = {}
        self.exceeded_until = 0.0

    def answer(self, path, now):
        if self.exceeded_until >= now:
            return self.refusal(self.seconds(self.exceeded_until - now))
        start = math.floor(now / self.window)
        count = self.counts.get(start, 0) + 1
        before = self.counts.get(start - 1, 0)
        passed = now - start * self.window
        estimate = count + math.floor(before * (self.window - passed) / self.window)
        after = None
        if count > self.limit:
            after = self.seconds(self.window - passed)
        elif estimate > self.limit:
            after = self.seconds(self.window - (self.limit - count) / before * self.window)
        if after is not None:
            self.exceeded_until = now + after
            return self.refusal(after)
        self.counts[start] = count
        return 200, self.fields(self.limit - estimate), {}

    def refusal(self, after):
        body = {"error": {"code": "OVER_RATE_LIMIT", "message": "You have exceeded your rate limit."}}
        return 429, self.fields(0) + [("retry-after", f"{after:.4f}")], body

    def seconds(self, time):
        """Up to a whole second of the hour that the window stands for."""
        second = self.window / 3600
        return math.floor(time / second + 1) * second

    def fields(self, remaining):
        fields = [("age", 0), ("x-ratelimit-limit", self.limit), ("x-ratelimit-remaining", remaining)]
        if self.window == 3600:
            return fields + [("x-api-umbrella-request-id", "0")]
        return fields + [("ratelimit-policy", f"{self.limit};w={self.window:.0f}")]


class Draft:
    def __init__(self, limit="60", window="60"):
        self.limit = int(limit)
        self.window = float(window)
        self.used, self.reset = 0, 0.0

    def answer(self, path, now):
        if now >= self.reset:
            self.used, self.reset = 0, now + self.window
        status = 200 if self.used < self.limit else 429
        self.used += status == 200
        left = math.ceil(self.reset - now)
        fields = [
            ("ratelimit-policy", f'"default";q={self.limit};w={math.ceil(self.window)}'),
            ("ratelimit", f'"default";r={self.limit - self.used};t={left}'),
        ]
        return status, fields + ([("retry-after", left)] if status == 429 else []), {}


class Plain:
    def __init__(self, rate="20", burst="1"):
        self.rate, self.burst = float(rate), float(burst)
        self.tokens, self.filled = self.burst, 0.0

    def answer(self, path, now):
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens < 1:
            return 429, [], {}
        self.tokens -= 1
        return 200, [], {}


class Saying:
    def __init__(self, status, fields):
        self.status, self.fields = int(status), fields

    def answer(self, path, now):
        return self.status, self.fields, {}


class Server:
    def __init__(self, limits):
        self.limits = limits
        self.requests = []

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").split("\r\n")
                path = lines[0].split(" ")[1]
                for line in lines[1:]:
                    name, _, value = line.partition(":")
                    if name.lower() == "content-length":
                        await reader.readexactly(int(value))
                writer.write(self.answer(path))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(self, path):
        if path == "/told":
            accepted = sum(status == 200 for _, status, _ in self.requests)
            told = {"accepted": accepted, "refused": len(self.requests) - accepted, "requests": self.requests}
            return response(200, [], told)
        now = time.time()
        status, fields, body = self.limits.answer(path, now)
        self.requests.append((now, status, path))
        return response(status, [("date", formatdate(now, usegmt=True))] + fields, body)


def response(status, fields, body):
    body = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'Refused'}"]
    lines += [f"{name}: {value}" for name, value in fields]
    lines += ["content-type: application/json", f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def limits(mode, settings):
    if mode == "saying":
        return Saying(settings[0], [tuple(field.split(":", 1)) for field in settings[1:]])
    modes = {"github": GitHub, "datagov": DataGov, "draft": Draft, "plain": Plain}
    return modes[mode](**dict(setting.split("=") for setting in settings))


async def main(mode, *settings):
    server = Server(limits(mode, settings))
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1024)
    print(listener.sockets[0].getsockname()[1], flush=True)
    # Ends with whoever started it, however that one ends.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
