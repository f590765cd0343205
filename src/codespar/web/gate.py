"""What no request gets past: a body over the limit, and an address no database could look up."""

from __future__ import annotations

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from codespar.web.base import (
    GITHUB_WEBHOOKS,
    MAX_BODY,
    MAX_CHANNEL_BODY,
    MAX_WEBHOOK_BODY,
    error_body,
)


class Gate:
    """Refuses a body over the limit, whether it says its size or not, and an address with a NUL in it, which no database looks up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            answer = error_body("invalid", "there is a NUL character in the address", "leave it out")
            await JSONResponse(answer, 422)(scope, receive, send)
            return
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        most = MAX_CHANNEL_BODY if scope["path"].startswith("/channels/") else MAX_BODY
        if scope["path"] == GITHUB_WEBHOOKS:
            most = MAX_WEBHOOK_BODY
        too_large = f"a request may have {most} bytes"
        told = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if told.isdigit() and int(told) > most:
            await JSONResponse(error_body("too_large", too_large, "send less"), 413)(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            part = await receive()
            taken += len(part.get("body", b""))
            if taken > most:
                raise HTTPException(413, too_large)
            return part

        await self._app(scope, counted, send)
