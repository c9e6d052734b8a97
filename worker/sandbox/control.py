"""The sandbox as one ASGI application: the provider's contract, and JSON to steer it by.

The control API has no key of its own: the sandbox listens on the loopback address unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from worker.carrier.protocol import FeeType
from worker.carrier.server import InThreads, carrier_app
from worker.carrier.wire.spellings import APIKEY_LENGTH
from worker.portability import operators
from worker.sandbox.faults import Fault
from worker.sandbox.provider import DEFAULT_APIKEY, Account, Sandbox
from worker.sandbox.unruly import Unruly

THREADS = 256
"""Look-ups that may sleep at once: a slow provider still answers many callers."""

_T = TypeVar("_T")


class ControlError(Exception):
    """A control request that cannot be done, and why."""


class PortOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /sandbox/port``; without a time it is done at once."""

    mobile: str
    # code, short name or full name
    operator: str
    at: datetime | None = None
    in_seconds: float | None = None


class AccountChange(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /sandbox/account``: what is named changes, an unknown key opens an account."""

    apikey: str = DEFAULT_APIKEY
    balance: int | None = None
    fee_type: FeeType | None = None
    disabled: bool | None = None


class LatencyChange(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /sandbox/latency``."""

    single_seconds: float | None = None
    batch_seconds: float | None = None
    scale: float | None = None


def sandbox_app(sandbox: Sandbox) -> ASGIApp:
    """Everything the sandbox serves over HTTP."""
    control = _Control(sandbox)
    app = carrier_app(InThreads(sandbox.account, threads=THREADS), extra_routes=control.routes())
    return Unruly(app, sandbox.faults)


class _Control:
    """The control API's handlers: each returns what to send as JSON."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """The control API's routes."""
        table: list[tuple[str, str, Callable[[Request], Awaitable[object]]]] = [
            ("GET", "/healthz", self.health),
            ("DELETE", "/sandbox", self.reset),
            ("GET", "/sandbox/faults", self.list_faults),
            ("POST", "/sandbox/faults", self.add_fault),
            ("DELETE", "/sandbox/faults", self.clear_faults),
            ("DELETE", "/sandbox/faults/{fault_id:int}", self.remove_fault),
            ("POST", "/sandbox/port", self.port),
            ("GET", "/sandbox/subscriber", self.subscriber),
            ("GET", "/sandbox/bill", self.bill),
            ("DELETE", "/sandbox/bill", self.reset_bill),
            ("GET", "/sandbox/account", self.read_account),
            ("PUT", "/sandbox/account", self.change_account),
            ("GET", "/sandbox/latency", self.read_latency),
            ("PUT", "/sandbox/latency", self.change_latency),
        ]
        return [Route(path, _json(handler), methods=[method]) for method, path, handler in table]

    async def health(self, _request: Request) -> object:
        return {"status": "ok"}

    async def reset(self, _request: Request) -> object:
        self._sandbox.reset()
        return {"status": "reset"}

    async def list_faults(self, _request: Request) -> object:
        return self._sandbox.faults.pending()

    async def add_fault(self, request: Request) -> object:
        return self._sandbox.faults.add(await _body(request, Fault))

    async def clear_faults(self, _request: Request) -> object:
        self._sandbox.faults.clear()
        return []

    async def remove_fault(self, request: Request) -> object:
        if not self._sandbox.faults.remove(request.path_params["fault_id"]):
            raise ControlError("no fault of that id is on order")
        return self._sandbox.faults.pending()

    async def port(self, request: Request) -> object:
        order = await _body(request, PortOrder)
        code = operators.of_label(order.operator.upper())
        if code not in set(operators.Operator):
            raise ControlError("operator must be one of CMCC 移动, CUCC 联通, CTCC 电信, CBN 广电")
        at = order.at or datetime.now(UTC) + timedelta(seconds=order.in_seconds or 0.0)
        if at.tzinfo is None:
            raise ControlError("at needs an offset from UTC, such as Z")
        self._sandbox.port(order.mobile, str(code), at)
        return {"operator": code, "at": at.astimezone(UTC)}

    async def subscriber(self, request: Request) -> object:
        return self._sandbox.truth(request.query_params.get("mobile", ""))

    async def bill(self, request: Request) -> object:
        bill = self._sandbox.bill
        mobile = request.query_params.get("mobile")
        if mobile is not None:
            return {"times_billed": bill.times_billed(mobile)}
        return bill.summary() | {"recent": bill.recent()[-20:]}

    async def reset_bill(self, _request: Request) -> object:
        self._sandbox.bill.reset()
        return self._sandbox.bill.summary()

    async def read_account(self, request: Request) -> object:
        account = self._sandbox.read_account(request.query_params.get("apikey", DEFAULT_APIKEY))
        if account is None:
            raise ControlError("no account has that key")
        return account

    async def change_account(self, request: Request) -> object:
        change = await _body(request, AccountChange)
        if len(change.apikey) != APIKEY_LENGTH:
            raise ControlError(f"a key has {APIKEY_LENGTH} characters")
        account = self._sandbox.read_account(change.apikey) or Account(change.apikey)
        account = replace(account, **_named(change))
        self._sandbox.put_account(account)
        return account

    async def read_latency(self, _request: Request) -> object:
        return asdict(self._sandbox.latency)

    async def change_latency(self, request: Request) -> object:
        change = await _body(request, LatencyChange)
        latency = replace(self._sandbox.latency, **_named(change))
        if min(asdict(latency).values()) < 0:
            raise ControlError("a latency is never negative")
        self._sandbox.latency = latency
        return asdict(latency)


def _json(handler: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
    """Send what a handler returns, or 400 with the reason it cannot be done."""

    async def endpoint(request: Request) -> Response:
        try:
            status, content = 200, await handler(request)
        except ControlError as exc:
            status, content = 400, {"error": str(exc)}
        return Response(msgspec.json.encode(content), status, media_type="application/json")

    return endpoint


async def _body(request: Request, shape: type[_T]) -> _T:
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=shape)
    except msgspec.DecodeError as exc:
        raise ControlError(str(exc)) from exc


def _named(change: msgspec.Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(change).items() if value is not None}
