"""flask-limiter.py PORT: a limit for each of two routes, five in six seconds, told in fields."""

import sys

from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from werkzeug.serving import run_simple

app = Flask(__name__)
limiter = Limiter(get_remote_address, app=app, storage_uri="memory://", headers_enabled=True)


@app.get("/search")
@limiter.limit("5 per 6 second")
def search():
    return "ok"


@app.get("/items")
@limiter.limit("5 per 6 second")
def items():
    return "ok"


run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True)
