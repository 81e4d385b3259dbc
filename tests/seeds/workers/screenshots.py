"""A screenshot service after Pixashot's published behaviour: a browser that leaks with every capture and is recycled.

`/capture` (GET and POST) takes its time on one of a few pages and leaves memory behind; `/health` says what the process
uses; a client that goes away frees its page.
"""

import asyncio

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from base import NAME, SETTINGS, journal, resident_mb, serve

PAGES = asyncio.Semaphore(4)
CAPTURE_SECONDS = SETTINGS.get("capture_ms", 150) / 1000
LEAK_BYTES = SETTINGS.get("leak_kib", 512) * 1024
leaked = []


async def capture(request):
    wish = await request.json() if request.method == "POST" else dict(request.query_params)
    async with PAGES:
        journal(did="began", method=request.method, n=wish.get("n"))
        for _ in range(round(float(wish.get("times", 1)) * 10)):
            await asyncio.sleep(CAPTURE_SECONDS / 10)
            if await request.is_disconnected():
                journal(did="gave up", n=wish.get("n"))
                return Response(status_code=499)
        leaked.append(bytearray(b"\x01") * LEAK_BYTES)
        journal(did="captured", method=request.method, n=wish.get("n"))
    picture = b"\x89PNG\r\n\x1a\n" + b"p" * 40_000
    return Response(picture, media_type="image/png", headers={"X-Worker": NAME})


async def health(_):
    checks = {"memory_usage_mb": resident_mb(), "cpu_percent": 1.5}
    return JSONResponse({"status": "healthy", "checks": checks, "version": "1.0.0", "worker": NAME})


serve(Starlette(routes=[
    Route("/capture", capture, methods=["GET", "POST"]),
    Route("/health", health),
    Route("/health/ready", health),
    Route("/health/live", lambda _: JSONResponse({"status": "alive"})),
]))
