"""Stands in for the router of Cloud Foundry, for one route that is bound to a route service.

router.py CLEAR_PORT TLS_PORT SERVICE_PORT APP_PORT CERTIFICATE KEY WORD

A request without a signature gets the three fields and goes to the route service. One with a signature is compared with
it, loses the three fields, and goes to the app. One request a connection; after its head bytes pass as they are, in both
directions. X-Test-Peer is the address that the router says it was called from. Signatures contain WORD.
"""
import asyncio
import hashlib
import hmac
import os
import ssl
import sys

CLEAR, TLS, SERVICE, APP = map(int, sys.argv[1:5])
CERTIFICATE, KEY, WORD = sys.argv[5:8]
SECRET = os.urandom(16)
FIELDS = ("x-cf-forwarded-url", "x-cf-proxy-signature", "x-cf-proxy-metadata")


def signature(url, nonce):
    return f"{WORD}-{hmac.new(SECRET, (nonce + url).encode('latin-1'), hashlib.sha256).hexdigest()}"


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except (OSError, NotImplementedError):
        # TLS has no half-closed connections here.
        writer.close()


async def serve(reader, writer):
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        writer.close()
        return
    line, *lines = head.rstrip("\r\n").split("\r\n")
    fields = [tuple(part.strip() for part in field.split(":", 1)) for field in lines]
    get = lambda name: next((value for own, value in fields if own.lower() == name), "")
    method, uri, version = line.split(" ")
    url = f"https://partner.test:{TLS}{uri}"
    peer = get("x-test-peer") or "203.0.113.7"
    gone = {"x-test-peer", *FIELDS}
    if not get("upgrade"):
        gone.add("connection")
        fields.append(("X-Router", "stand-in"))
    shown = get("x-cf-proxy-signature")
    added = []
    if shown:
        nonce = get("x-cf-proxy-metadata").rpartition("-")[2]
        if not hmac.compare_digest(shown, signature(url, nonce)) or get("x-cf-forwarded-url") != url:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nX-Cf-RouterError: signature\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()
            return
        port = APP
    else:
        port, uri = SERVICE, "/of-the-service"
        nonce = os.urandom(8).hex()
        gone |= {"host", "x-forwarded-for"}
        before = [value for own, value in fields if own.lower() == "x-forwarded-for"]
        added = [
            ("Host", "service.test"),
            ("X-Forwarded-For", ", ".join([*before, peer])),
            ("X-CF-Forwarded-Url", url),
            ("X-CF-Proxy-Signature", signature(url, nonce)),
            ("X-CF-Proxy-Metadata", f"{WORD}-{nonce}"),
        ]
    if "connection" in gone:
        added.append(("Connection", "close"))
    fields = [field for field in fields if field[0].lower() not in gone] + added
    head = "\r\n".join([f"{method} {uri} {version}", *(f"{name}: {value}" for name, value in fields), "", ""])
    onward, back = await asyncio.open_connection("127.0.0.1", port)
    back.write(head.encode("latin-1"))
    asyncio.ensure_future(copy(reader, back))
    await copy(onward, writer)
    writer.close()


async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE, KEY)
    await asyncio.start_server(serve, "127.0.0.1", TLS, ssl=tls)
    await asyncio.start_server(serve, "127.0.0.1", CLEAR)
    await asyncio.Event().wait()


asyncio.run(main())
