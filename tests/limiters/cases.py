"""The cases: which limiter, how it is started, and what its client asks of it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Server:
    """A command in which @PORT@, @FOLDER@ and the like are replaced, and a file that is filled in the same way."""

    command: tuple
    template: str = ""
    values: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """Requests of one kind: so many at once, then so many a second."""

    rate: float
    burst: int = 0
    path: str = "/search"
    host: str = "127.0.0.1"
    fields: dict = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True)
class Case:
    name: str
    limit: str
    server: Server
    streams: tuple
    seconds: int = 60
    quick: bool = False
    # Whether an answer that was allowed tells how many may follow.
    tells: bool = False
    # What the destination names.
    hosts: str = "127.0.0.1"


def node(script, *arguments):
    return Server(("@NODE@", f"@SERVERS@/{script}.js", "@PORT@", *arguments))


def python(script, *arguments):
    # -P: a script is named after the package that it imports.
    return Server(("@VENV@/bin/python", "-P", f"@SERVERS@/{script}.py", "@PORT@", *arguments))


def express(*arguments):
    return node("express-rate-limit", *arguments)


def nginx(rate, burst, status):
    command = ("nginx", "-p", "@FOLDER@", "-e", "stderr", "-c", "@FOLDER@/nginx.conf")
    return Server(command, "nginx.conf", {"RATE": rate, "BURST": burst, "STATUS": status})


def haproxy(template, limit, window):
    command = ("haproxy", "-db", "-f", f"@FOLDER@/{template}")
    return Server(command, template, {"LIMIT": limit, "WINDOW": window})


def envoy(fields):
    command = ("@ENVOY@", "--disable-hot-restart", "--concurrency", "1", "-l", "error", "-c", "@FOLDER@/envoy.yaml")
    return Server(command, "envoy.yaml", {"HEADERS": fields})


def rack_attack(limit, period):
    command = ("env", f"LIMIT={limit}", f"PERIOD={period}", "puma", "-C", "-", "-q", "-e", "production")
    return Server((*command, "-b", "tcp://127.0.0.1:@PORT@", "@SERVERS@/rack-attack.ru"))


def governor(form):
    return Server(("@GOVERNOR@", "@PORT@", form))


FIVE = "5 in 6 s"
EACH = "5 in 6 s, each route"
# Two and a half times what is allowed.
ONE = (Stream(2, 15),)
# One route is used up, the other one stays below its own limit.
ROUTES = (Stream(2, 15), Stream(0.5, path="/items"))
USERS = (
    Stream(2, 15, fields={"authorization": "Bearer A"}, label="user A"),
    Stream(0.5, fields={"authorization": "Bearer B"}, label="user B"),
)
HOSTS = (
    Stream(2, 15, host="a.pages.test", label="host a"),
    Stream(0.5, host="b.pages.test", label="host b"),
)
# The second route has no limit.
FREE = (Stream(2, 15), Stream(2, path="/items"))
AUTH = (Stream(2, 15, path="/api/auth/ok"),)
HALF_A_MINUTE = (Stream(1.25, 15),)

CASES = (
    Case("express-default", FIVE, express("default"), ONE, tells=True),
    Case("express-draft-7", FIVE, express("draft-7"), ONE, tells=True),
    Case("express-draft-8", FIVE, express("draft-8"), ONE, tells=True),
    Case("express-default-routes", EACH, express("default"), ROUTES, quick=True, tells=True),
    Case("express-draft-7-routes", EACH, express("draft-7"), ROUTES, tells=True),
    Case("express-draft-8-routes", EACH, express("draft-8"), ROUTES, quick=True, tells=True),
    Case("express-users", "5 in 6 s, each user", express("default", "user"), USERS, quick=True, tells=True),
    Case(
        "express-hosts", "5 in 6 s, each host", express("default", "host"), HOSTS,
        quick=True, tells=True, hosts="*.pages.test",
    ),
    Case("express-hour", "5 in 1 h, one route", express("draft-6", "hour"), FREE, quick=True, tells=True),
    Case("fastify-rate-limit", FIVE, node("fastify-rate-limit"), ONE, tells=True),
    Case("koa-ratelimit", FIVE, node("koa-ratelimit"), ONE, quick=True, tells=True),
    Case("nestjs-throttler", EACH, node("nestjs-throttler", "default"), ROUTES, quick=True, tells=True),
    Case("nestjs-throttler-named", EACH + ", 30 in 60 s", node("nestjs-throttler", "named"), ROUTES, tells=True),
    Case("better-auth", "5 in 6 s after the last", node("better-auth"), AUTH, quick=True),
    Case("slowapi", EACH, python("slowapi"), ROUTES, quick=True, tells=True),
    Case("flask-limiter", EACH, python("flask-limiter"), ROUTES, tells=True),
    Case("fastapi-limiter", FIVE, python("fastapi-limiter"), ONE, quick=True),
    Case("quart-rate-limiter", FIVE, python("quart-rate-limiter"), ONE, quick=True, tells=True),
    Case("nginx-429", "20/s, 11 at once", nginx("20r/s", 10, 429), (Stream(50, 15),)),
    Case("nginx-503", "20/s, 11 at once", nginx("20r/s", 10, 503), (Stream(50, 15),)),
    Case("nginx-429-slow", "50 in 60 s, 5 at once", nginx("50r/m", 4, 429), ONE, quick=True),
    Case("haproxy", "5 in 6 s, refused ones too", haproxy("haproxy.cfg", 5, "6s"), ONE),
    Case("haproxy-passed", FIVE, haproxy("haproxy-passed.cfg", 5, "6s"), ONE, quick=True),
    Case("haproxy-minute", "30 in 60 s", haproxy("haproxy-passed.cfg", 30, "60s"), HALF_A_MINUTE, seconds=180),
    Case("envoy", FIVE, envoy("OFF"), ONE),
    Case("envoy-draft-03", FIVE, envoy("DRAFT_VERSION_03"), ONE, tells=True),
    Case("rack-attack", FIVE, rack_attack(5, 6), ONE),
    Case("rack-attack-minute", "30 in 60 s", rack_attack(30, 60), HALF_A_MINUTE, seconds=180),
    Case("tower-governor", "2/s, 8 at once", governor("default"), (Stream(5, 15),)),
    Case("tower-governor-headers", "2/s, 8 at once", governor("headers"), (Stream(5, 15),), tells=True),
    Case("tower-governor-one", "2/s, 1 at once", governor("one"), (Stream(5, 15),)),
    Case("every-tenth-503", "none", python("every-tenth", "503", "Retry-After:0"), (Stream(5, 15),), quick=True),
    Case("every-tenth-429", "none", python("every-tenth", "429"), (Stream(5, 15),), quick=True),
)
