"""fastapi-limiter.py PORT: five in six seconds."""

import sys

import uvicorn
from fastapi import Depends, FastAPI
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import Duration, Limiter, Rate

app = FastAPI()


@app.get("/search", dependencies=[Depends(RateLimiter(limiter=Limiter(Rate(5, Duration.SECOND * 6))))])
async def search():
    return "ok"


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
