"""Requests that are too large are refused while they come in, not after."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatterbox_service.errors import BodyTooLarge

_AROUND = 64 * 2**10  # bytes beside the recording: text, settings, a form's boundaries


class BodyLimit:
    """Middleware. A form may hold one recording; JSON holds it in base64, four bytes for three."""

    def __init__(self, app: ASGIApp, max_reference_bytes: int) -> None:
        self._app, self._max_reference_bytes = app, max_reference_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        json = "json" in headers.get("content-type", "").lower()
        limit = (4 * self._max_reference_bytes // 3 if json else self._max_reference_bytes) + _AROUND
        fault = BodyTooLarge(f"the request is larger than {limit} bytes")
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            await JSONResponse(fault.body(), fault.status, fault.headers())(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                # FastAPI hands this kind on as it is, and makes any other into a fault of the body's form.
                raise HTTPException(fault.status, str(fault), fault.headers())
            return message

        await self._app(scope, counted, send)
