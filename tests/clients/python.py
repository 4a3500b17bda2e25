import asyncio, sys, warnings
warnings.simplefilter("ignore")

kind = sys.argv[1]

def ask(url):
    if kind == "requests":
        import requests
        answer = requests.get(url, timeout=10); return f"{answer.status_code} {answer.text}"
    if kind == "httpx":
        import httpx
        answer = httpx.get(url, timeout=10); return f"{answer.status_code} {answer.text}"
    if kind == "urllib":
        import urllib.request
        return urllib.request.urlopen(url, timeout=10).read()
    if kind == "urllib3":
        import urllib3
        return urllib3.request("GET", url, retries=False, timeout=10).data
    if kind == "urllib3-manager":
        import os, ssl, urllib3, urllib.parse
        proxy = os.environ["HTTPS_PROXY"]
        user = urllib.parse.unquote(urllib3.util.parse_url(proxy).auth or "")
        manager = urllib3.ProxyManager(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=user), ssl_context=ssl.create_default_context())
        return manager.request("GET", url, retries=False, timeout=10).data
    if kind.startswith("aiohttp"):
        import aiohttp
        async def get():
            async with aiohttp.ClientSession(trust_env=kind == "aiohttp-env") as session, session.get(url) as answer:
                return f"{answer.status} {await answer.text()}"
        return asyncio.run(get())
    if kind == "boto3":
        import boto3, botocore.config
        config = botocore.config.Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, connect_timeout=10)
        client = boto3.client("s3", "us-east-1", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", config=config)
        return client.get_object(Bucket="b", Key="k")["Body"].read()
    if kind == "websockets":
        from websockets.sync.client import connect
        with connect(url.replace("http", "ws", 1), open_timeout=10) as socket:
            greeting = socket.recv(timeout=10)
            socket.send("and back")
            return f"{greeting} {socket.recv(timeout=10)}"
    if kind == "grpcio":
        import grpc
        host = url.split("/")[2]
        channel = grpc.secure_channel(host, grpc.ssl_channel_credentials()) if url.startswith("https") else grpc.insecure_channel(host)
        return channel.unary_unary("/hello/hello")(b"and back", timeout=10)

    if kind == "niquests":
        import niquests
        answer = niquests.get(url, timeout=10); return f"{answer.status_code} {answer.text}"
    if kind == "curl_cffi":
        from curl_cffi import requests
        answer = requests.get(url, timeout=10); return f"{answer.status_code} {answer.text}"
    if kind.startswith("pycurl"):
        import os, pycurl
        curl = pycurl.Curl(); curl.setopt(curl.URL, url); curl.setopt(curl.TIMEOUT, 10)
        if kind == "pycurl-cainfo":
            curl.setopt(curl.CAINFO, os.environ["SSL_CERT_FILE"])
        return f"{curl.perform_rb()} {curl.getinfo(curl.RESPONSE_CODE)}"
    if kind == "tornado":
        from tornado.httpclient import HTTPClient
        return HTTPClient().fetch(url, request_timeout=10).body
    if kind == "httplib2":
        import httplib2
        answer, body = httplib2.Http(timeout=10).request(url); return f"{answer.status} {body}"
    if kind.startswith("elasticsearch"):
        from elasticsearch import Elasticsearch
        options = {"node_class": "requests"} if kind.endswith("requests") else {}
        return Elasticsearch(url, max_retries=0, request_timeout=10, **options).transport.perform_request("GET", "/")
    if kind == "websocket-client":
        import websocket
        socket = websocket.create_connection(url.replace("http", "ws", 1), timeout=10)
        greeting = socket.recv(); socket.send("and back")
        return f"{greeting} {socket.recv()}"

for argument in sys.argv[2:]:
    name, url = argument.split("=", 1)
    print("==", name)
    try:
        print(ask(url))
    except Exception as error:
        print(repr(error)[:600], str(error)[:600], getattr(getattr(error, "response", None), "body", ""))
        while error := error.__cause__ or error.__context__:
            print(repr(error)[:600])
