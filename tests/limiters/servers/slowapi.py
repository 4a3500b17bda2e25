"""slowapi.py PORT: a limit for each of two routes, five in six seconds, told in fields."""

import sys

import uvicorn
from fastapi import FastAPI, Request, Response
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address

limiter = Limiter(key_func=get_remote_address, headers_enabled=True)
app = FastAPI()
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)


@app.get("/search")
@limiter.limit("5/6seconds")
async def search(request: Request, response: Response):
    return "ok"


@app.get("/items")
@limiter.limit("5/6seconds")
async def items(request: Request, response: Response):
    return "ok"


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
