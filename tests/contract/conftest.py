"""What passes the conformance suite: add an implementation to ``IMPLEMENTATIONS`` and it is held to it.

Each is built over a ``Sandbox``, whose faults, accounts and bill the suite uses to set the scene.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import httpx
import pytest

from tests.acceptance.provider import WatchedSandbox
from tests.acceptance.waiting import eventually
from worker.carrier.client import HttpCarrier
from worker.carrier.protocol import CarrierLookup
from worker.sandbox.provider import DEFAULT_APIKEY, Sandbox
from worker.sandbox.serving import serving


@dataclass(frozen=True)
class Served:
    """A sandbox, and where it listens."""

    sandbox: WatchedSandbox
    url: str
    # one client for all tests: making one costs 18 ms
    web: httpx.Client


@dataclass(frozen=True)
class Subject:
    """The implementation under test: how it is opened for a key, and the sandbox behind it."""

    sandbox: Sandbox
    open: Callable[[str], AbstractContextManager[CarrierLookup]]


@contextmanager
def http_carrier(url: str, apikey: str) -> Iterator[CarrierLookup]:
    carrier = HttpCarrier(url, apikey, single_timeout_seconds=5, batch_timeout_seconds=5)
    try:
        yield carrier
    finally:
        carrier.close()


IMPLEMENTATIONS: dict[str, Callable[[Served], Subject]] = {
    "sandbox": lambda served: Subject(
        served.sandbox, lambda apikey: nullcontext(served.sandbox.account(apikey))
    ),
    "http": lambda served: Subject(served.sandbox, lambda apikey: http_carrier(served.url, apikey)),
}


@pytest.fixture(scope="session")
def served_all_session() -> Iterator[Served]:
    sandbox = WatchedSandbox()
    with serving(sandbox) as url, httpx.Client() as web:
        yield Served(sandbox, url, web)


@pytest.fixture
def served(served_all_session: Served) -> Iterator[Served]:
    """A sandbox over HTTP, as new: a call that its caller gave up would come on this test's bill."""
    sandbox = served_all_session.sandbox
    eventually(lambda: not sandbox.at_the_door(), "the calls of the test before to end")
    sandbox.reset()
    yield served_all_session
    sandbox.reset()


@pytest.fixture(params=IMPLEMENTATIONS)
def subject(request: pytest.FixtureRequest, served: Served) -> Subject:
    """Each implementation in turn."""
    return IMPLEMENTATIONS[request.param](served)


@pytest.fixture
def carrier(subject: Subject) -> Iterator[CarrierLookup]:
    """Each implementation in turn, with the sandbox's own account."""
    with subject.open(DEFAULT_APIKEY) as opened:
        yield opened


@pytest.fixture
def client(served: Served) -> Iterator[CarrierLookup]:
    """The HTTP client against the sandbox."""
    with http_carrier(served.url, DEFAULT_APIKEY) as opened:
        yield opened
