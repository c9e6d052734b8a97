"""The provider's HTTP contract, answered by any ``CarrierLookup``: an ASGI application.

HTTP 200 for every code, as the document has it. Look-ups are synchronous and run in threads, so many
slow ones do not hold up the event loop. What the document leaves open is decided in
``docs/provider-contract.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from worker.carrier.protocol import Answer, CarrierLookup, Unanswered
from worker.carrier.wire import answering
from worker.carrier.wire.codes import Code, refusal
from worker.carrier.wire.spellings import BALANCE_PATH, BATCH_PATH, SINGLE_PATH
from worker.errors import AccountFault, CarrierError, ContractBreach, RequestRefused

MAX_BODY_BYTES = 256 * 1024
"""A batch of 1000 numbers is 14 kB; a longer body is refused with -10, or 1."""

_ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def carrier_app(
    authorise: Callable[[str], CarrierLookup],
    *,
    threads: int = 64,
    max_body_bytes: int = MAX_BODY_BYTES,
    extra_routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """Serve ``/carrier``, ``/carrier_batch`` and ``/balance``.

    ``authorise`` is given a key of the right length and returns that caller's look-up, or raises
    ``AccountFault`` with code -1 or -6; it runs in a thread, as the look-up does. ``threads`` is how
    many calls may be in progress at once; more wait.
    """
    front = _Front(authorise, threads, max_body_bytes)
    routes = [
        Route(SINGLE_PATH, front.single, methods=["GET", "POST"]),
        # every method: the document has a code of its own for the wrong one
        Route(BATCH_PATH, front.batch, methods=_ALL_METHODS),
        Route(BALANCE_PATH, front.balance, methods=["GET", "POST"]),
        *extra_routes,
    ]
    return Starlette(routes=routes, exception_handlers={CarrierError: _refused, Exception: _failed})


class _Front:
    """The three calls: each reads its request, runs the look-up in a thread and writes the answer."""

    def __init__(self, authorise: Callable[[str], CarrierLookup], threads: int, max_body_bytes: int) -> None:
        self._authorise = authorise
        self._threads = threads
        self._limiter: anyio.CapacityLimiter | None = None
        self._max_body_bytes = max_body_bytes

    async def single(self, request: Request) -> Response:
        params = await self._params(request)
        apikey, mobile = answering.read_apikey(params), answering.read_mobile(params)
        return await self._in_thread(lambda: answer_single(self._authorise(apikey), mobile))

    async def batch(self, request: Request) -> Response:
        if request.method != "POST":
            raise refusal(Code.USE_POST)
        body = await self._body(request, Code.TOO_MANY)
        if _is_form(request) and not _is_object(body):
            raise refusal(Code.USE_POST)
        batch = answering.read_batch(body)
        return await self._in_thread(lambda: answer_batch(self._authorise(batch.apikey), batch))

    async def balance(self, request: Request) -> Response:
        apikey = answering.read_apikey(await self._params(request))
        return await self._in_thread(lambda: answering.write_balance(self._authorise(apikey).balance()))

    async def _params(self, request: Request) -> dict[str, str]:
        """The parameters: those of the body, a form or JSON, before those of the query."""
        query = request.scope["query_string"]
        body = await self._body(request, Code.BAD_PARAMETER) if request.method == "POST" else b""
        if _is_object(body) or (body and not _is_form(request) and "json" in _content_type(request)):
            return answering.read_params(query) | answering.read_json_params(body)
        return answering.read_params(body, query)

    async def _body(self, request: Request, too_long: Code) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body_bytes:
                raise refusal(too_long)
        return bytes(body)

    async def _in_thread(self, work: Callable[[], bytes]) -> Response:
        if self._limiter is None:  # a limiter belongs to the loop that runs
            self._limiter = anyio.CapacityLimiter(self._threads)
        return _response(await anyio.to_thread.run_sync(work, limiter=self._limiter))


def answer_single(carrier: CarrierLookup, mobile: str) -> bytes:
    """The answer of ``/carrier``; a number of the wrong shape is refused without asking."""
    wrong = answering.shape_code(mobile)
    if wrong is not None:
        return answering.write_refusal(wrong)
    return answering.write_single(carrier.lookup(mobile))


def answer_batch(carrier: CarrierLookup, batch: answering.BatchRequest) -> bytes:
    """The answer of ``/carrier_batch``: one item a number, in the order sent.

    A number sent twice is asked once and answered twice; one of the wrong shape is refused in its own item.
    """
    answering.check_size(batch)
    wrong = [answering.shape_code(mobile) for mobile in batch.mobiles]
    asked = dict.fromkeys(
        str(mobile) for mobile, code in zip(batch.mobiles, wrong, strict=True) if code is None
    )
    entries = carrier.lookup_batch(list(asked)) if asked else []
    found: dict[object, Answer | Unanswered] = {entry.msisdn: entry for entry in entries}
    return answering.write_batch(
        [
            Unanswered("", code, code.reason) if code is not None else found[mobile]
            for mobile, code in zip(batch.mobiles, wrong, strict=True)
        ]
    )


async def _refused(_request: Request, exc: Exception) -> Response:
    """A call that failed: account, request and contract faults keep their code, any other is a -8."""
    code: int | None = None
    if isinstance(exc, AccountFault | RequestRefused | ContractBreach):
        code = exc.code
    return _response(answering.write_refusal(Code.SYSTEM_ERROR if code is None else code))


async def _failed(_request: Request, _exc: Exception) -> Response:
    """A defect: the caller is told -8, and Starlette raises it again for the log."""
    return _response(answering.write_refusal(Code.SYSTEM_ERROR))


def _response(content: bytes) -> Response:
    return Response(content, media_type="application/json", headers={"Cache-Control": "no-store"})


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").lower()


def _is_form(request: Request) -> bool:
    return "form" in _content_type(request)


def _is_object(body: bytes) -> bool:
    """Whether a body is JSON whatever its header says: ``curl -d`` calls everything a form."""
    return body.lstrip()[:1] == b"{"
