"""What the HTTP applications refuse before any route sees it, as ASGI middleware."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from drpwatch.text import shown

MOST_BODY_BYTES = 1 << 20

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyLimit:
    """Stops reading a request's body where it is longer than any that means something: 413."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its body counted as it is read."""
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > MOST_BODY_BYTES:
                # Closing, for else the server would take in the rest of it, to throw it away.
                sentence = f"the body is longer than {MOST_BODY_BYTES} bytes"
                raise HTTPException(413, sentence, {"connection": "close"})
            return message

        await self._app(scope, counted if scope["type"] == "http" else receive, send)


class LocalNames:
    """Answers only requests that were sent to this machine by an address or as localhost: else 421.

    For an application that listens on the loopback interface alone. A page from the Internet can have its own
    name resolve to 127.0.0.1, and a browser on this machine would then let it read the answers; but the
    browser tells that name.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless its host is another's name."""
        if scope["type"] == "http":
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            strange = [host for host in hosts if not is_local_name(host)]
            if strange:
                sentence = f"host {shown(strange[0])}: ask by http://127.0.0.1 or http://localhost"
                await JSONResponse({"error": sentence}, 421)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_local_name(host: str) -> bool:
    """Say whether the host of a request, with or without its port, is localhost or an address."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    return name.lower().rstrip(".") == "localhost" or is_address(name.removeprefix("[").removesuffix("]"))


def is_address(name: str) -> bool:
    """Say whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Say whether what listens on an address hears this machine alone."""
    return ipaddress.ip_address(address).is_loopback
