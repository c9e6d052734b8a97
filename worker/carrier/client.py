"""The provider over HTTP: a ``CarrierLookup`` that asks.

Every call is a POST, so that neither key nor number stands in a URL. What went wrong is told apart by
what it may have cost: ``NotSent`` only where the provider cannot have seen the whole request (or said
429), ``AnswerLost`` for everything after that. No error text holds a key, a number or the provider's own
words, and none drags an httpx exception along, which would hold the request.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpcore
import httpx

from worker.carrier.deadline import Call, DeadlineBackend, calling
from worker.carrier.protocol import MAX_BATCH, Answer, Balance, Unanswered
from worker.carrier.wire import asking
from worker.carrier.wire.spellings import BALANCE_PATH, BATCH_PATH, SINGLE_PATH
from worker.errors import AnswerLost, NotSent, SettingsError, TransientFault
from worker.metrics import provider

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""A batch of 1000 answers is 133 kB; anything beyond this is no answer."""

KEEPALIVE_SECONDS = 2.0
"""Below the 5 s after which uvicorn and others close an idle connection, so that they rarely get to."""

_REQUESTS = {SINGLE_PATH: "single", BATCH_PATH: "batch", BALANCE_PATH: "balance"}
"""As the metrics name them."""
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_JSON = {"Content-Type": "application/json; charset=utf-8"}
# identity: an answer cannot unfold beyond its cap
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "presend"}


class HttpCarrier:
    """Asks a provider at ``base_url`` with ``apikey``. Thread-safe; ``close`` it at the end.

    The time-outs are for a whole call, from waiting for a connection to the answer's last byte; half of it
    may pass before the request is sent.
    ``transport`` replaces the network in tests.
    """

    def __init__(
        self,
        base_url: str,
        apikey: str,
        *,
        single_timeout_seconds: float = 3.0,
        batch_timeout_seconds: float = 15.0,
        max_connections: int = 64,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._apikey = apikey
        self.latest_date: str | None = None
        """The Date header of the latest answer, as it came."""
        self._single_timeout_seconds = single_timeout_seconds
        self._batch_timeout_seconds = batch_timeout_seconds
        _quieten_logs()
        self._connections = _Connections(_checked(base_url), max_connections, transport)

    def lookup(self, msisdn: str, *, timeout_seconds: float | None = None) -> Answer:
        """Ask for one number; raises as ``CarrierLookup`` says."""
        body = asking.single_request(self._apikey, msisdn)
        raw = self._post(SINGLE_PATH, _FORM, body, self._single_timeout_seconds, timeout_seconds)
        return asking.decode_single(raw, msisdn)

    def lookup_batch(
        self, msisdns: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[Answer | Unanswered]:
        """Ask for 1 to 1000 distinct numbers (``ValueError`` otherwise); raises as ``CarrierLookup`` says."""
        if not 1 <= len(msisdns) <= MAX_BATCH or len(set(msisdns)) != len(msisdns):
            raise ValueError(f"a batch is 1 to {MAX_BATCH} distinct numbers")
        body = asking.batch_request(self._apikey, msisdns)
        raw = self._post(BATCH_PATH, _JSON, body, self._batch_timeout_seconds, timeout_seconds)
        return asking.decode_batch(raw, msisdns)

    def balance(self, *, timeout_seconds: float | None = None) -> Balance:
        """The account's balance; raises as ``CarrierLookup`` says."""
        body = asking.balance_request(self._apikey)
        raw = self._post(BALANCE_PATH, _FORM, body, self._single_timeout_seconds, timeout_seconds)
        return asking.decode_balance(raw)

    def close(self) -> None:
        """Close every connection; calls in flight are lost."""
        self._connections.close()

    def _post(
        self, path: str, headers: dict[str, str], body: bytes, seconds: float, cap_seconds: float | None
    ) -> bytes:
        call = Call(seconds if cap_seconds is None else min(seconds, cap_seconds))
        with provider.timed(_REQUESTS[path]):
            outcome = self._try(path, headers, body, call)
            if call.stale:  # a kept-alive connection was found closed before anything was sent
                outcome = self._try(path, headers, body, call)
        if isinstance(outcome, TransientFault):
            raise outcome
        return outcome

    def _try(self, path: str, headers: dict[str, str], body: bytes, call: Call) -> bytes | TransientFault:
        """One attempt. Its fault is returned, to be raised where no httpx exception is its context."""
        try:
            with self._connections.client() as client, calling(call):
                return self._exchange(client, path, headers, body, call)
        except httpx.PoolTimeout:
            self._connections.exhausted()
            return NotSent("no free connection to the provider within the deadline")
        except (httpx.HTTPError, httpx.StreamError) as exc:
            return _fault(exc)

    def _exchange(
        self, client: httpx.Client, path: str, headers: dict[str, str], body: bytes, call: Call
    ) -> bytes:
        """Send one request and read its answer; raises httpx's errors, and the status's own fault."""
        # connecting, writing and reading keep to the call's own times, see ``DeadlineStream``
        timeout = httpx.Timeout(None, pool=max(0.0, call.send_by - time.monotonic()))
        with client.stream("POST", path, content=body, headers=headers, timeout=timeout) as response:
            status = response.status_code
            self.latest_date = response.headers.get("Date")
            if status == 429:
                raise NotSent("the provider refused the call for its rate (HTTP 429)")
            if status != 200:
                raise AnswerLost(f"the provider answered HTTP {status}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise AnswerLost("the provider's answer is compressed, which was not asked for")
            answer = bytearray()
            for chunk in response.iter_bytes():
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    raise AnswerLost("the provider's answer is larger than any answer")
            return bytes(answer)


def _fault(exc: Exception) -> TransientFault:
    """What a failure of the network is: ``DeadlineStream`` says ConnectError until the request has left."""
    name = type(exc).__name__
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol):
        return NotSent(f"the provider could not be reached ({name})")
    return AnswerLost(f"the provider's answer was lost ({name})")


def _checked(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, half an IPv6 address
        good = False
    if not good or parts.query or parts.fragment:
        raise SettingsError("PRESEND_PROVIDER_URL must be http(s)://host[:port][/path] without a query")
    return base_url.rstrip("/")


def _quieten_logs() -> None:
    """Keep httpx and httpcore above INFO, where they write whole URLs."""
    for name in ("httpx", "httpcore"):
        logger = logging.getLogger(name)
        if logger.level < logging.WARNING:
            logger.setLevel(logging.WARNING)


class _Connections:
    """The pool of connections, made anew when it seems to have leaked its places."""

    def __init__(self, base_url: str, limit: int, transport: httpx.BaseTransport | None) -> None:
        self._base_url = base_url
        self._limit = limit
        self._tls = _tls(base_url)
        self._transport = transport
        self._lock = threading.Lock()
        self._exhaustions = 0
        self._users: dict[httpx.Client, int] = {}
        self._client = self._open()

    @contextmanager
    def client(self) -> Generator[httpx.Client]:
        """The present client; a replaced one is closed by its last user."""
        with self._lock:
            client = self._client
            self._users[client] += 1
        try:
            yield client
            self._exhaustions = 0
        finally:
            with self._lock:
                self._users[client] -= 1
            self._close_unused()

    def exhausted(self) -> None:
        """Take note of a call that got no connection; after two in a row the pool is replaced."""
        with self._lock:
            self._exhaustions += 1
            if self._exhaustions >= 2 and self._transport is None:
                self._exhaustions = 0
                self._client = self._open()
        self._close_unused()

    def close(self) -> None:
        """Close every connection, of calls in flight too."""
        with self._lock:
            clients = list(self._users)
        for client in clients:
            client.close()

    def _close_unused(self) -> None:
        with self._lock:
            unused = [
                client for client, users in self._users.items() if client is not self._client and not users
            ]
            for client in unused:
                del self._users[client]
        for client in unused:
            client.close()

    def _open(self) -> httpx.Client:
        client = httpx.Client(
            base_url=self._base_url,
            headers=_HEADERS,
            transport=self._transport or _Transport(self._limit, self._tls),
            follow_redirects=False,
            trust_env=False,
        )
        self._users[client] = 0
        return client


class _Transport(httpx.HTTPTransport):
    """httpx's transport over ``DeadlineBackend``; httpx has no public way to put one in."""

    def __init__(self, max_connections: int, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls, trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            max_connections=max_connections,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=DeadlineBackend(),
        )


def _tls(base_url: str) -> ssl.SSLContext:
    """Whom to trust: the authorities of certifi, or for a plain http URL nobody, which is 18 ms faster."""
    if base_url.startswith("https:"):
        return httpx.create_ssl_context(trust_env=False)
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
