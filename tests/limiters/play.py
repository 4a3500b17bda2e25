"""Plays a case: a limiter of its own, outrider before it where wanted, and a client that asks on its schedule."""

import asyncio
import os
import random
import re
import shutil
import socket
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 120
ANSWER = 90

# Below the ports that connections are made from, so that nobody has taken one before its server does.
ports = iter(random.sample(range(20000, 32000), 12000))
# Servers are started a few at a time: it is all they cost.
starts = asyncio.Semaphore(3)


class Broken(Exception):
    """A program that does not start, or answers what no limiter does."""


@dataclass
class Answer:
    stream: int
    due: float
    at: float
    status: int
    ours: bool

    @property
    def passed(self):
        return self.status < 400

    @property
    def refused(self):
        return self.status in (429, 503) and not self.ours


def free_port():
    for port in ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Broken("no free port")


@asynccontextmanager
async def program(command, folder):
    """Runs until the block ends, or the driver does; what it writes is in `log`."""
    with open(folder / "log", "wb") as log:
        # A driver that is killed takes them with it.
        process = await asyncio.create_subprocess_exec(
            "setpriv", "--pdeathsig", "KILL", "--", *command,
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(what, process, folder, ready):
    """Waits until `ready` gives something."""
    for _ in range(PATIENCE * 20):
        if process.returncode is not None:
            break
        if (found := await ready()) is not None:
            return found
        await asyncio.sleep(0.05)
    log = (folder / "log").read_text(errors="replace")[-2000:]
    raise Broken(f"{what} did not start; tests/limiters/run --tools installs what it needs\n{log}")


@asynccontextmanager
async def limiter(case, tools):
    with tempfile.TemporaryDirectory(prefix="limiters-") as name:
        folder, port = Path(name), free_port()
        (folder / "ok").write_text("ok")
        values = {**tools.values, **case.server.values, "PORT": port, "FOLDER": folder}

        def fill(text):
            return re.sub("@([A-Z]+)@", lambda found: str(values[found[1]]), text)

        if case.server.template:
            template = tools.servers / case.server.template
            (folder / template.name).write_text(fill(template.read_text()))
        async with AsyncExitStack() as stack:
            async with starts:
                command = [fill(word) for word in case.server.command]
                process = await stack.enter_async_context(program(command, folder))

                async def listens():
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                    except OSError:
                        return None
                    writer.close()
                    return True

                await until(case.name, process, folder, listens)
            yield port


@asynccontextmanager
async def outrider(path, hosts, settings, keep):
    with tempfile.TemporaryDirectory(prefix="limiters-") as name:
        folder = Path(name)
        (folder / "outrider.yml").write_text(
            "listen: 127.0.0.1:0\n"
            "admin: 127.0.0.1:0\n"
            "workers: 1\n"
            f"ca: {{ bundle: {folder}/ca-bundle.pem }}\n"
            "egress: { allow_networks: [loopback] }\n"
            f"log: {{ format: json, access: {'all' if keep else 'none'} }}\n"
            "dns: { hosts: { a.pages.test: 127.0.0.1, b.pages.test: 127.0.0.1 } }\n"
            f'destinations: {{ p: {{ hosts: ["{hosts}"], {settings} }} }}\n'
        )
        async with AsyncExitStack() as stack:
            async with starts:
                command = (path, "run", "--config", folder / "outrider.yml")
                process = await stack.enter_async_context(program(command, folder))

                async def told():
                    log = (folder / "log").read_text(errors="replace")
                    found = re.search(r"proxy on 127\.0\.0\.1:(\d+)", log)
                    return found and int(found[1])

                listens = await until("outrider", process, folder, told)
            try:
                yield listens
            finally:
                if keep:
                    shutil.copy(folder / "log", keep)


class Connections:
    """To one port, kept open and used again as an HTTP library does."""

    def __init__(self, port):
        self.port = port
        self.idle = []

    async def ask(self, target, authority, fields):
        """One GET: the status, and whether outrider says that the answer is its own."""
        lines = [f"GET {target} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        request = "\r\n".join([*lines, "", ""]).encode()
        while self.idle:
            try:
                return await self.exchange(*self.idle.pop(), request)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                # The server closed it meanwhile. Where part of an answer came, it did more than that.
                if getattr(error, "partial", b""):
                    raise
        return await self.exchange(*await asyncio.open_connection("127.0.0.1", self.port), request)

    async def exchange(self, reader, writer, request):
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = re.search(r"\r\ncontent-length: *(\d+)", head)
            if length:
                await reader.readexactly(int(length[1]))
            elif "\r\ntransfer-encoding: chunked" in head:
                await reader.readuntil(b"0\r\n\r\n")
            else:
                await reader.read(-1)
        except BaseException:
            writer.close()
            raise
        if not head.startswith("http/1.1 "):
            raise Broken(f"not an answer: {head!r}")
        if reader.at_eof() or "\r\nconnection: close" in head:
            writer.close()
        else:
            self.idle.append((reader, writer))
        return int(head[9:12]), "\r\nproxy-status: outrider" in head


def schedule(streams, seconds):
    """When which stream asks, in seconds from the start: its burst, then its rate until `seconds`."""
    for index, stream in enumerate(streams):
        for _ in range(stream.burst):
            yield 0.0, index
        for number in range(1, int(seconds * stream.rate) if seconds else 0):
            yield number / stream.rate, index


async def client(streams, seconds, start, port, service, proxied):
    """Asks on schedule, however long the answers take."""
    loop = asyncio.get_running_loop()
    connections = Connections(port)

    async def one(due, index):
        await asyncio.sleep(start + due - loop.time())
        stream = streams[index]
        authority = f"{stream.host}:{service}"
        target = f"http://{authority}{stream.path}" if proxied else stream.path
        status, ours = await asyncio.wait_for(connections.ask(target, authority, stream.fields), ANSWER)
        return Answer(index, due, loop.time() - start, status, ours)

    answers = await asyncio.gather(*(one(due, index) for due, index in sorted(schedule(streams, seconds))))
    for _, writer in connections.idle:
        writer.close()
    return answers


async def run(case, seconds, settings, tools, barrier, after):
    """All answers of one run, `after` seconds behind the first one; without `settings` the client asks the service."""
    async with AsyncExitStack() as stack:
        try:
            service = port = await stack.enter_async_context(limiter(case, tools))
            if settings:
                keep = None
                if tools.logs:
                    name = f"{case.name}-{re.sub('[^a-z0-9]+', '-', settings)}.log"
                    keep = os.path.join(tools.logs, name)
                hosts = f"{case.hosts}:{service}"
                port = await stack.enter_async_context(outrider(tools.outrider, hosts, settings, keep))
        finally:
            start = await barrier.reached() + after
        return await client(case.streams, seconds, start, port, service, settings is not None)


class Barrier:
    """Nothing is asked before the last program is up. The runs of a case begin together: their windows lie alike."""

    def __init__(self, count):
        self.missing = count
        self.start = asyncio.get_running_loop().create_future()

    async def reached(self):
        self.missing -= 1
        if self.missing == 0:
            self.start.set_result(asyncio.get_running_loop().time() + 0.5)
        return await self.start
