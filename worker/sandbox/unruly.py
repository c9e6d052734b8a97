"""Faults on the wire: an ASGI wrapper that spoils answers, down to the socket.

ASGI has no word for a TCP reset, so ``SandboxProtocol`` hands the connection's transport on in the scope.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.carrier.wire.spellings import BALANCE_PATH, BATCH_PATH, SINGLE_PATH
from worker.sandbox.faults import ON_THE_WIRE, Endpoint, Fault, FaultBook

_TRANSPORT = "presend.transport"
_ENDPOINTS: dict[str, Endpoint] = {
    SINGLE_PATH: "carrier",
    BATCH_PATH: "carrier_batch",
    BALANCE_PATH: "balance",
}
_FOREIGN_MOBILE = "13900000000"


class SandboxProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol that lets the application reach its transport."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        inner = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})[_TRANSPORT] = self.transport
            await inner(scope, receive, send)

        self.app = with_transport


class Unruly:
    """Spoils the answers of the contract's three calls as the book orders."""

    def __init__(self, app: ASGIApp, faults: FaultBook) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or fail to."""
        endpoint = _ENDPOINTS.get(scope.get("path", ""))
        fault = self._faults.take(endpoint, ON_THE_WIRE) if endpoint else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        body = await self._worked(scope, receive) if fault.processed else b""
        if fault.kind in _MUTILATIONS:
            await _respond(send, 200, _mutilated(body, fault))
        elif fault.kind in {"hang", "reset", "close"}:
            await _vanish(scope, receive, fault)
        elif fault.kind == "status":
            await _respond(send, fault.status, _page(fault.status), b"text/html")
        elif fault.kind == "drip":
            await _drip(send, body, fault.seconds)
        else:
            await _truncate(scope, receive, send, body)

    async def _worked(self, scope: Scope, receive: Receive) -> bytes:
        """The body the application would have sent: the call is worked, and billed."""
        body = bytearray()

        async def keep(message: Message) -> None:
            body.extend(message.get("body", b""))

        await self._app(scope, receive, keep)
        return bytes(body)


async def _respond(send: Send, status: int, body: bytes, media_type: bytes = b"application/json") -> None:
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    if 300 <= status < 400:
        headers.append((b"location", b"https://elsewhere.invalid/"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _drip(send: Send, body: bytes, seconds: float) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    step = len(body) // 10 + 1
    for start in range(0, len(body), step):
        await asyncio.sleep(seconds)
        more = start + step < len(body)
        await send({"type": "http.response.body", "body": body[start : start + step], "more_body": more})


async def _truncate(scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    _transport(scope).close()
    await _gone(receive)


async def _vanish(scope: Scope, receive: Receive, fault: Fault) -> None:
    """Answer nothing: stay silent, or end the connection by FIN or RST."""
    transport = _transport(scope)
    if fault.kind == "reset":
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        transport.abort()
    elif fault.kind == "close":
        transport.close()
    await _gone(receive)


async def _gone(receive: Receive) -> None:
    """Wait until the connection is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport = scope["extensions"][_TRANSPORT]
    return transport


_MUTILATIONS = frozenset(
    {"cut", "trailing_comma", "drop", "duplicate", "reorder", "foreign", "extra", "bare"}
)


def _mutilated(body: bytes, fault: Fault) -> bytes:
    """The answer's JSON, damaged as ordered; what an object cannot suffer leaves it whole."""
    if fault.kind == "cut":
        return body[: len(body) // 2]
    if fault.kind == "trailing_comma":
        return body.replace(b"}", b",}").replace(b"]", b",]")
    document = msgspec.json.decode(body)
    if isinstance(document, list) and document:
        _damage(document, fault.kind, fault.index % len(document))
    return msgspec.json.encode(document)


def _damage(items: list[dict[str, Any]], kind: str, index: int) -> None:
    if kind == "drop":
        del items[index]
    elif kind == "duplicate":
        items.insert(index, items[index])
    elif kind == "reorder":
        items.reverse()
    elif kind == "foreign":
        items[index] = _foreign(items[index])
    elif kind == "extra":
        items.insert(index, _foreign(items[index]))
    else:
        items[index].pop("result", None)


def _foreign(item: dict[str, Any]) -> dict[str, Any]:
    return item | {"result": item.get("result", {}) | {"Mobile": _FOREIGN_MOBILE}}


def _page(status: int) -> bytes:
    return f"<html><head><title>{status}</title></head><body><center>nginx</center></body></html>".encode()
