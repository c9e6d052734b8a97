"""A pipeline on the bench: real Postgres and the sandbox's own look-up; clock and broker are the test's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, text

from worker.asking import Asking
from worker.batching import BatchOutcome, Waiter
from worker.buyer import Buyer
from worker.carrier.protocol import CarrierLookup
from worker.errors import NotConfirmed
from worker.pipeline import Pipeline
from worker.portability.events import Event
from worker.portability.failure_codes import FailureClass, FailureCodes
from worker.portability.freshness import Freshness
from worker.portability.records import CheckedRequest
from worker.portability.requests import CheckRequest, Lane
from worker.portability.rules import Rules
from worker.sandbox.provider import DEFAULT_APIKEY, Sandbox
from worker.sharing import Sharing
from worker.storage.budget import Budget
from worker.storage.postgres_store import PostgresStore
from worker.upkeep import Upkeep

PORTED, HOME = "13972565391", "13798361236"  # the document's own: CMCC -> CTCC, CMCC
_references = itertools.count()


@dataclass
class Collector:
    """A publisher that keeps what it was given; `refusing` plays a broker that confirms nothing."""

    events: list[Event] = field(default_factory=list)
    refusing: bool = False

    def publish(self, events: Sequence[Event]) -> None:
        if self.refusing:
            raise NotConfirmed("the broker is away")
        self.events += events

    def close(self) -> None: ...


@dataclass
class Bench:
    """A pipeline on the bench."""

    database: Engine
    sandbox: Sandbox
    publisher: Collector = field(default_factory=Collector)
    now: datetime | None = None
    budget: Budget = Budget()  # noqa: RUF009 - frozen
    stores: list[PostgresStore] = field(default_factory=list)

    def clock(self) -> datetime:
        return self.now or datetime.now(UTC)

    def pipeline(
        self, carrier: CarrierLookup | None = None, *, patience_seconds: float = 0.3, account: str = ""
    ) -> Pipeline:
        carrier = carrier or self.sandbox.account(DEFAULT_APIKEY)
        rules = self.rules()
        store = PostgresStore(self.database, daily=self.budget)
        self.stores.append(store)
        buyer = Buyer(
            carrier,
            store,
            timeout_seconds=(3, 15),
            billed_codes=frozenset({0, -4}),
            now=self.clock,
        )
        sharing = Sharing(
            store,
            rules,
            "sandbox",
            patience_seconds,
            buyer.hold_seconds,
            budgeted=self.budget.daily > 0,
            now=self.clock,
        )
        return Pipeline(
            store=store,
            asking=Asking(store=store, sharing=sharing, buyer=buyer, account=account),
            publisher=self.publisher,
            rules=rules,
            account=account,
            now=self.clock,
        )

    @staticmethod
    def rules() -> Rules:
        return Rules(
            Freshness({Lane.RECHARGE: 600, Lane.SMS: 86400, Lane.DIRECT: 0}),
            FailureCodes.shipped(),
            frozenset({FailureClass.REFUSED, FailureClass.THROTTLED}),
            max_attempts=3,
        )

    def upkeep(self, *, balance_seconds: float = 0) -> Upkeep:
        return Upkeep(
            database=self.database,
            store=PostgresStore(self.database),
            carrier=self.sandbox.account(DEFAULT_APIKEY),
            publisher=self.publisher,
            intake={},
            broker_url=None,
            balance_seconds=balance_seconds,
            now=self.clock,
        )

    def known_numbers(self, count: int) -> list[str]:
        """Numbers whose look-up is billed."""
        numbers = (f"139{index:08d}" for index in itertools.count())
        billed = (number for number in numbers if self.sandbox.truth(number).code in {0, -4})
        return list(itertools.islice(billed, count))

    def paused(self, lane: Lane) -> bool:
        """Whether a lost call keeps a lane from asking now."""
        query = "SELECT count(*) FROM lane_breaker WHERE lane = :lane AND next_call_at > now()"
        return bool(self.rows(query, lane=lane.value)[0][0])

    def rows(self, query: str, **parameters: Any) -> list[Any]:
        with self.database.connect() as connection:
            return list(connection.execute(text(query), parameters))

    def request(self, lane: Lane, msisdn: str | None, **fields: Any) -> CheckRequest:
        fields = {
            "reference": f"r{next(_references)}",
            "received_at": self.clock(),
            "operator": "CMCC",
        } | fields
        return CheckRequest(lane=lane, msisdn=msisdn, **fields)


def decided(outcome: BatchOutcome) -> list[CheckedRequest]:
    assert not outcome.postponed
    assert not outcome.rejected
    return [row for _, row in outcome.decided]


def run(pipeline: Pipeline, *requests: CheckRequest) -> list[CheckedRequest]:
    """Run a batch as a lane does: what still asks is run again at once."""
    outcome = pipeline.run_batch([Waiter(request) for request in requests])
    rows = decided(outcome)
    return rows + decided(pipeline.run_batch(outcome.still_asking)) if outcome.still_asking else rows
