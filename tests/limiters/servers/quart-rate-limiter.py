"""quart-rate-limiter.py PORT: five in six seconds."""

import asyncio
import sys
from datetime import timedelta

from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart
from quart_rate_limiter import RateLimiter, rate_limit

app = Quart(__name__)
RateLimiter(app)


@app.get("/search")
@rate_limit(5, timedelta(seconds=6))
async def search():
    return "ok"


config = Config()
config.bind = [f"127.0.0.1:{sys.argv[1]}"]
config.loglevel = "ERROR"
asyncio.run(serve(app, config))
