"""A web app that calls one service and knows nothing of proxies or credentials.

It asks EXAMPLE_URL whenever somebody asks it. The proxy and the trusted roots reach urllib by environment variables.
"""

import os
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

URL = os.environ.get("EXAMPLE_URL", "https://api.weather.gov/")


def call(url):
    """The status and the body that the service, or the proxy in its place, answers."""
    request = urllib.request.Request(url, headers={"User-Agent": "outrider-example"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read(4096).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(4096).decode("utf-8", "replace")
    except OSError as error:
        return 502, str(error)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/":
            status, text = call(URL)
            text = f"{URL} answers {status}:\n\n{text}\n"
        else:
            status, text = 404, "there is only /\n"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
