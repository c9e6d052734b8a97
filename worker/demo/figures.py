"""The demo's figures, counted in Postgres.

With SQL of the demo's own, past presend's storage: a figure that disagrees must be able to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

_DECISIONS = "SELECT lane, decision, count(*) FROM check_request GROUP BY 1, 2"
_VIRTUAL = """
    SELECT lane, count(*) FROM check_request WHERE decision = 'reroute' AND reason = 'virtual' GROUP BY 1
"""
_ANSWERED_FROM = "SELECT coalesce(answered_from, 'none'), count(*) FROM check_request GROUP BY 1"
_REQUESTS = """
    SELECT count(*), count(DISTINCT msisdn),
           count(*) FILTER (WHERE msisdn IS NOT NULL AND status IS DISTINCT FROM 'invalid')
    FROM check_request
"""
_CALLS = """
    SELECT lane, count(*), coalesce(sum(numbers), 0), coalesce(max(numbers), 0), coalesce(sum(billed), 0),
           coalesce(sum(numbers) FILTER (WHERE billed IS NULL AND outcome <> 'calling'), 0)
    FROM lookup_call GROUP BY 1
"""
_OTHERS = "SELECT (SELECT count(*) FROM dead_letter), (SELECT count(*) FROM port_change)"
_ASKED = """
    SELECT r.reference, r.answered_from, coalesce(extract(epoch FROM c.answered_at - c.sent_at), 0)
    FROM check_request r LEFT JOIN lookup_call c ON c.id = r.call_id
    WHERE r.lane = 'recharge' AND r.reference = ANY(%s)
"""
_RECORDS = """
    SELECT msisdn::text, range_holder, current_operator, area, status FROM port_record
    WHERE msisdn = ANY(%s::bigint[])
"""
_LETTER = "SELECT task, payload, reason FROM dead_letter ORDER BY received_at, id LIMIT 1"
_CHANGE = """
    SELECT c.msisdn::text, c.donor, c.recipient, r.lane || '.' || r.decision, r.asked_operator,
           r.target_operator
    FROM port_change c JOIN check_request r ON r.batch_id = c.batch_id AND r.msisdn = c.msisdn
    ORDER BY c.observed_before LIMIT 1
"""


class Calls(NamedTuple):
    """One lane's provider calls."""

    calls: int
    # numbers asked for
    numbers: int
    # in the largest call
    largest: int
    billed: int
    # numbers of calls whose answer was lost: nobody can know whether they were billed
    lost: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What Postgres says at one moment."""

    # by lane and decision
    decisions: Counter[tuple[str, str]]
    # reroutes of virtual numbers, which no operator's product fits
    virtual: Counter[str]
    answered_from: Counter[str]
    # ledger rows, and the different numbers in them
    requests: int
    numbers: int
    # what one look-up a request would have been billed
    one_each: int
    calls: dict[str, Calls]
    dead_letters: int
    port_changes: int

    @property
    def billed(self) -> int:
        """Look-ups the ledger says were billed."""
        return sum(calls.billed for calls in self.calls.values())

    @property
    def lost(self) -> int:
        """Look-ups that may have been billed besides."""
        return sum(calls.lost for calls in self.calls.values())

    @property
    def saved(self) -> float:
        """Share of the look-ups that did not have to be bought."""
        return 1 - self.billed / self.one_each if self.one_each else 0.0


class Asked(NamedTuple):
    """Where a precheck's answer came from, and the seconds the provider took for it."""

    reference: str
    answered_from: str | None
    provider_seconds: float


class Record(NamedTuple):
    """A number's port record."""

    msisdn: str
    range_holder: str | None
    current_operator: str | None
    area: str | None
    status: str


class Letter(NamedTuple):
    """A dead letter."""

    task: str
    payload: Any
    reason: str


class Change(NamedTuple):
    """An observed change of operator, and what was decided of the request that observed it."""

    msisdn: str
    donor: str
    recipient: str
    event: str
    asked_operator: str | None
    target_operator: str | None


class Ledger(AbstractContextManager["Ledger"]):
    """A connection of the demo's own."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(database_url, autocommit=True)

    def __exit__(self, *_exc: object) -> None:
        """Give the connection up."""
        self._connection.close()

    def figures(self) -> Figures:
        """Count everything."""
        ((requests, numbers, one_each),) = self._rows(_REQUESTS)
        ((dead_letters, port_changes),) = self._rows(_OTHERS)
        return Figures(
            decisions=Counter({(lane, decision): n for lane, decision, n in self._rows(_DECISIONS)}),
            virtual=Counter(dict(self._rows(_VIRTUAL))),
            answered_from=Counter(dict(self._rows(_ANSWERED_FROM))),
            requests=requests,
            numbers=numbers,
            one_each=one_each,
            calls={lane: Calls(*map(int, counts)) for lane, *counts in self._rows(_CALLS)},
            dead_letters=dead_letters,
            port_changes=port_changes,
        )

    def asked(self, references: Sequence[str]) -> list[Asked]:
        """Return what the answers to these prechecks took the provider."""
        rows = self._rows(_ASKED, [list(references)])
        return [Asked(reference, source, float(seconds)) for reference, source, seconds in rows]

    def records(self, msisdns: Sequence[str]) -> list[Record]:
        """Return these numbers' records, in the order asked."""
        found = {row[0]: Record(*row) for row in self._rows(_RECORDS, [list(msisdns)])}
        return [found[msisdn] for msisdn in msisdns if msisdn in found]

    def first_letter(self) -> Letter | None:
        """Return the oldest dead letter."""
        return next((Letter(*row) for row in self._rows(_LETTER)), None)

    def first_change(self) -> Change | None:
        """Return the first number that was seen to move."""
        return next((Change(*row) for row in self._rows(_CHANGE)), None)

    def _rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return self._connection.execute(statement.encode(), parameters).fetchall()
