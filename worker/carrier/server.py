"""The provider's HTTP contract as an ASGI application, over whoever answers it.

HTTP 200 for every code, as the document has it; 429 only where an account has a rate limit. The sandbox and
presend's front door are both served by this, so that they read requests and write answers alike. What the
document leaves open is decided in ``docs/provider-contract.md``.
"""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from worker.carrier.protocol import MAX_BATCH, Answer, Balance, CarrierLookup, Unanswered
from worker.carrier.wire import answering
from worker.carrier.wire.codes import Code, refusal
from worker.carrier.wire.spellings import BALANCE_PATH, BATCH_PATH, SINGLE_PATH
from worker.errors import (
    AccountFault,
    CarrierError,
    ContractBreach,
    NotSent,
    RequestRefused,
    StorageUnavailable,
)

MAX_BODY_BYTES = 256 * 1024
"""A batch of 1000 numbers is 14 kB; a longer body is refused with -10, or 1."""

MAX_AGE_PARAMETER, MAX_AGE_HEADER = "max_age", "presend-max-age"
"""How a caller says which age of an answer it accepts, in seconds. The sandbox takes no notice."""

_ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Question:
    """A call as it was read."""

    # 32 characters
    apikey: str
    # distinct and well-formed; empty: only the key is to be checked
    mobiles: Sequence[str]
    # by ``/carrier_batch``
    batch: bool
    # the age of an answer that the caller accepts, as it wrote it
    max_age: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a question is answered with: an entry a number, in the order asked."""

    entries: Sequence[Answer | Unanswered] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    # told once the answer has left
    sent: Callable[[], None] | None = None


class RateLimited(NotSent):
    """The account's own rate limit was hit: HTTP 429."""

    def __init__(self, calls_a_minute: int, retry_after_seconds: float) -> None:
        self.retry_after = max(1, math.ceil(retry_after_seconds))
        super().__init__(
            f"rate limit of this account: {calls_a_minute} calls a minute. Try again in {self.retry_after} s",
            code=Code.SYSTEM_ERROR,
        )


class Answering(Protocol):
    """Who answers calls; refuses them by raising a ``CarrierError`` with its code."""

    async def lookup(self, question: Question) -> Reply:
        """Answer one call."""
        ...

    async def balance(self, apikey: str) -> Balance:
        """The balance of a key's account."""
        ...


class InThreads:
    """Answers with a ``CarrierLookup``, which is synchronous: each call in a thread of its own.

    ``authorise`` is given a key and returns that caller's look-up, or raises ``AccountFault`` with code -1 or
    -6. ``threads`` is how many calls may be in progress at once; more wait.
    """

    def __init__(self, authorise: Callable[[str], CarrierLookup], *, threads: int = 64) -> None:
        self._authorise = authorise
        self._threads = threads
        self._limiter: anyio.CapacityLimiter | None = None

    async def lookup(self, question: Question) -> Reply:
        """Answer one call."""
        return await self._in_thread(lambda: Reply(self._ask(question)))

    async def balance(self, apikey: str) -> Balance:
        """The balance of a key's account."""
        return await self._in_thread(lambda: self._authorise(apikey).balance())

    def _ask(self, question: Question) -> Sequence[Answer | Unanswered]:
        carrier = self._authorise(question.apikey)
        if not question.mobiles:
            return ()
        if question.batch:
            return carrier.lookup_batch(question.mobiles)
        return [carrier.lookup(question.mobiles[0])]

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        if self._limiter is None:  # a limiter belongs to the loop that runs
            self._limiter = anyio.CapacityLimiter(self._threads)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


def carrier_app(
    its: Answering,
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    extra_routes: Sequence[BaseRoute] = (),
    otherwise: ASGIApp | None = None,
) -> Starlette:
    """Serve ``/carrier``, ``/carrier_batch`` and ``/balance``; ``otherwise`` answers every other path."""
    front = _Front(its, max_body_bytes)
    routes = [
        _route(SINGLE_PATH, front.single),
        # every method: the document has a code of its own for the wrong one
        Route(BATCH_PATH, front.batch, methods=_ALL_METHODS),
        _route(BALANCE_PATH, front.balance),
        *extra_routes,
    ]
    handlers = {
        RateLimited: _too_many_calls,
        CarrierError: _refused,
        StorageUnavailable: _refused,
        TimeoutError: _refused,
        ClientDisconnect: _gone,
        Exception: _failed,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    if otherwise is not None:  # no mount: that would take what has the wrong method, too
        app.router.default = otherwise
    return app


def _route(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    route = Route(path, endpoint)
    route.methods = {"GET", "POST"}  # Starlette adds HEAD to GET, and it would be asked and charged
    return route


class _Front:
    """The three calls: each reads its request, has it answered and writes the answer."""

    def __init__(self, its: Answering, max_body_bytes: int) -> None:
        self._its = its
        self._max_body_bytes = max_body_bytes

    async def single(self, request: Request) -> Response:
        """Answer one number; one of the wrong shape is refused without asking."""
        params = await self._params(request)
        apikey, mobile = answering.read_apikey(params), answering.read_mobile(params)
        wrong = answering.shape_code(mobile)
        age = params.get(MAX_AGE_PARAMETER) or request.headers.get(MAX_AGE_HEADER)
        reply = await self._its.lookup(Question(apikey, () if wrong else (mobile,), False, age))
        if wrong is not None:
            return _response(answering.write_refusal(wrong))
        return _response(answering.write_single(reply.entries[0]), reply)

    async def batch(self, request: Request) -> Response:
        """Answer up to 1000 numbers, one item a number, in the order sent.

        A number sent twice is asked once and answered twice; one of the wrong shape is refused in its item.
        """
        if request.method != "POST":
            raise refusal(Code.USE_POST)
        body = await self._body(request, Code.TOO_MANY)
        if _is_form(request) and not _is_object(body):
            raise refusal(Code.USE_POST)
        asked = answering.read_batch(body)
        wrong = [answering.shape_code(mobile) for mobile in asked.mobiles]
        right = [str(mobile) for mobile, code in zip(asked.mobiles, wrong, strict=True) if code is None]
        too_many = len(asked.mobiles) > MAX_BATCH
        mobiles = () if too_many else tuple(dict.fromkeys(right))
        age = request.query_params.get(MAX_AGE_PARAMETER) or request.headers.get(MAX_AGE_HEADER)
        reply = await self._its.lookup(Question(asked.apikey, mobiles, True, age))
        if too_many:
            raise refusal(Code.TOO_MANY)
        found: dict[object, Answer | Unanswered] = {entry.msisdn: entry for entry in reply.entries}
        entries = [
            Unanswered("", code, code.reason) if code is not None else found[mobile]
            for mobile, code in zip(asked.mobiles, wrong, strict=True)
        ]
        return _response(answering.write_batch(entries), reply)

    async def balance(self, request: Request) -> Response:
        """Answer what an account has left."""
        apikey = answering.read_apikey(await self._params(request))
        return _response(answering.write_balance(await self._its.balance(apikey)))

    async def _params(self, request: Request) -> dict[str, str]:
        """The parameters: those of the body, a form or JSON, before those of the query."""
        query = request.scope["query_string"]
        body = await self._body(request, Code.BAD_PARAMETER) if request.method == "POST" else b""
        if _is_object(body) or (body and not _is_form(request) and "json" in _content_type(request)):
            return answering.read_params(query) | answering.read_json_params(body)
        return answering.read_params(body, query)

    async def _body(self, request: Request, too_long: Code) -> bytes:
        """The body, without the BOM that .NET's clients put before JSON."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body_bytes:
                raise refusal(too_long)
        return bytes(body).removeprefix(BOM_UTF8)


async def _refused(_request: Request, exc: Exception) -> Response:
    """A call that failed: account, request and contract faults keep their code, any other is a -8.

    Postgres that is away, and a deadline that has passed, are of the others.
    """
    code: int | None = None
    if isinstance(exc, AccountFault | RequestRefused | ContractBreach):
        code = exc.code
    return _response(answering.write_refusal(Code.SYSTEM_ERROR if code is None else code))


async def _too_many_calls(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RateLimited)
    content = answering.write_refusal(Code.SYSTEM_ERROR, reason=str(exc))
    return _response(content, Reply(headers={"Retry-After": str(exc.retry_after)}), status=429)


async def _gone(_request: Request, _exc: Exception) -> Response:
    """A caller that hung up, or was given up, before its request was whole: nobody reads this."""
    return Response(status_code=400)


async def _failed(_request: Request, _exc: Exception) -> Response:
    """A defect: the caller is told -8, and Starlette raises it again for the log."""
    return _response(answering.write_refusal(Code.SYSTEM_ERROR))


def _response(content: bytes, reply: Reply = Reply(), *, status: int = 200) -> Response:
    return Response(
        content,
        status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", **reply.headers},
        background=None if reply.sent is None else BackgroundTask(_in_the_loop, reply.sent),
    )


async def _in_the_loop(sent: Callable[[], None]) -> None:
    sent()


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").lower()


def _is_form(request: Request) -> bool:
    return "form" in _content_type(request)


def _is_object(body: bytes) -> bool:
    """Whether a body is JSON whatever its header says: ``curl -d`` calls everything a form."""
    return body.lstrip()[:1] == b"{"
