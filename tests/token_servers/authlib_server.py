"""Authlib below Flask, which reads client_secret_basic percent-decoded.

One JSON argument: id, secret. Prints `ready PORT`, then `asked` for each token request.
"""

import json
import os
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from flask import Flask

given = json.loads(sys.argv[1])
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"


class Client(ClientMixin):
    def get_client_id(self):
        return given["id"]

    def get_allowed_scope(self, scope):
        return scope or ""

    def check_client_secret(self, client_secret):
        return client_secret == given["secret"]

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"


app = Flask(__name__)
server = AuthorizationServer(
    app,
    query_client=lambda client_id: Client() if client_id == given["id"] else None,
    save_token=lambda token, request: None,
)
server.register_grant(ClientCredentialsGrant)


@app.post("/token")
def token():
    print("asked", flush=True)
    return server.create_token_response()


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


with make_server("127.0.0.1", 0, app, handler_class=Quiet) as httpd:
    print("ready", httpd.server_port, flush=True)
    httpd.serve_forever()
