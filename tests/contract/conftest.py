"""What passes the conformance suite: add an implementation to ``IMPLEMENTATIONS`` and it is held to it.

Each is built over a ``Sandbox``, whose faults and bill the suite uses to set the scene; accounts are the
sandbox's too, or the front door's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import httpx
import pytest
from sqlalchemy import Engine, text

from tests.acceptance.provider import WatchedSandbox
from tests.acceptance.waiting import eventually
from tests.front_door import Front, front_door
from tests.services import database_url, own_database
from worker.carrier.client import HttpCarrier
from worker.carrier.protocol import CarrierLookup, FeeType
from worker.sandbox.provider import DEFAULT_APIKEY, Account, Sandbox
from worker.sandbox.serving import serving
from worker.storage.accounts import key_hash


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
    accounts: Accounts
    # codes of answers that an account pays for
    charged_codes: frozenset[int] = frozenset({0, -4})


class Accounts(Protocol):
    """Where the accounts are that the suite asks with."""

    def put_account(self, account: Account) -> None:
        """Open one, or replace it."""

    def read_account(self, apikey: str) -> Account | None:
        """One as it stands."""


@dataclass(frozen=True)
class FrontAccounts:
    """Those of presend's front door, under keys of the suite's."""

    database: Engine

    def put_account(self, account: Account) -> None:
        name = f"a{key_hash(account.apikey)[:20]}"
        values = {
            "name": name,
            "key_hash": key_hash(account.apikey),
            "fee_type": account.fee_type.value,
            "balance": account.balance,
            "status": "disabled" if account.disabled else "active",
        }
        with self.database.begin() as connection:
            connection.execute(_PUT, values)

    def read_account(self, apikey: str) -> Account | None:
        with self.database.connect() as connection:
            row = connection.execute(_READ, {"key_hash": key_hash(apikey)}).one_or_none()
        return None if row is None else Account(apikey, FeeType(row[0]), row[1], disabled=row[2])

    def idle(self) -> bool:
        """Whether no call holds a part of a balance: a hold is dropped after its answer was sent."""
        with self.database.connect() as connection:
            return not connection.execute(_HELD).scalar_one()


_PUT = text("""
    INSERT INTO account (id, name, key_hash, fee_type, balance, held, status, created_at)
    VALUES (gen_random_uuid(), :name, :key_hash, :fee_type, :balance, 0, :status, now())
    ON CONFLICT (key_hash) DO UPDATE
    SET fee_type = excluded.fee_type, balance = excluded.balance, status = excluded.status
""")
_READ = text("SELECT fee_type, balance, status = 'disabled' FROM account WHERE key_hash = :key_hash")
_HELD = text("SELECT EXISTS (SELECT FROM account_hold)")
_EMPTY = text("TRUNCATE account, account_hold, account_movement, port_record, lane_breaker, gate")


@contextmanager
def http_carrier(url: str, apikey: str) -> Iterator[CarrierLookup]:
    carrier = HttpCarrier(url, apikey, single_timeout_seconds=5, batch_timeout_seconds=5)
    try:
        yield carrier
    finally:
        carrier.close()


IMPLEMENTATIONS: dict[str, Callable[[Served, pytest.FixtureRequest], Subject]] = {
    "sandbox": lambda served, _: Subject(
        served.sandbox, lambda apikey: nullcontext(served.sandbox.account(apikey)), served.sandbox
    ),
    "http": lambda served, _: Subject(
        served.sandbox, lambda apikey: http_carrier(served.url, apikey), served.sandbox
    ),
    "front door": lambda served, request: _front_door(served, request.getfixturevalue("front_all_session")),
}
FAULTS_ARE_SEEN = pytest.mark.parametrize("subject", ["sandbox", "http"], indirect=True)
"""The provider's faults stop at the front door, which asks again, isolates, or says -8 (its own tests)."""


def _front_door(served: Served, front: Front) -> Subject:
    accounts = FrontAccounts(front.database)
    eventually(accounts.idle, "the front door to let go what it held for the test before")
    with front.database.begin() as connection:
        connection.execute(_EMPTY)
    accounts.put_account(Account(DEFAULT_APIKEY))
    return Subject(
        served.sandbox, lambda apikey: http_carrier(front.url, apikey), accounts, charged_codes=frozenset({0})
    )


@pytest.fixture(scope="session")
def front_all_session(
    served_all_session: Served, postgres_server: str, migrated_template: str
) -> Iterator[Front]:
    """presend's front door, buying from the sandbox."""
    with (
        own_database(postgres_server, "front", template=migrated_template) as name,
        front_door(
            database_url(postgres_server, name), served_all_session.url, provider_timeout_seconds="5"
        ) as front,
    ):
        yield front


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
    return IMPLEMENTATIONS[request.param](served, request)


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
