"""The story of one number: every request, call, record, change, dead letter and charge that names it.

Told as of any moment: what came later is left out, what was open then is told as open. The record of then
is put together from the ledger's answers, by the same rule that stored them (``changes.merged``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.portability.changes import merged
from worker.portability.freshness import Objection
from worker.portability.mentions import Mentions
from worker.portability.records import AnsweredFrom, CheckedRequest, PortChange, PortRecord, Status
from worker.portability.requests import CheckRequest, Lane, RequestKey
from worker.portability.rules import Rules
from worker.storage import dead_letters, ledger, port_records
from worker.storage.accounts import Movement
from worker.storage.dead_letters import DeadLetter

_OBSERVATIONS = 1000
"""Newest answers from which the records of then are put together."""
_CALLS = 100
"""Newest calls told that named the number and lost its answer, or bought it a second time."""

_COUNT = text("""
    SELECT count(*), count(*) FILTER (WHERE call_id IS NOT NULL)
    FROM check_request WHERE msisdn = :msisdn AND received_at <= :at
""")
_BATCHES = text("SELECT id, emitted_at FROM lookup_batch WHERE id = ANY(CAST(:ids AS uuid[]))")
_ANSWERS = text("""
    SELECT status, range_holder, current_operator, area, observed_at, min(decided_at)
    FROM check_request
    WHERE msisdn = :msisdn AND status IS NOT NULL AND observed_at IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5 ORDER BY observed_at DESC LIMIT :most
""")
_BUYERS = text("""
    SELECT observed_at, source, lane, reference, attempt, call_id FROM check_request
    WHERE msisdn = :msisdn AND call_id IS NOT NULL
      AND observed_at = ANY(CAST(:observed_at AS timestamptz[]))
""")
_CALL_COLUMNS = "c.id, c.lane, c.sent_at, c.answered_at, c.numbers, c.billed, c.outcome"
_CALLS_BY_ID = text(f"""
    SELECT {_CALL_COLUMNS} FROM lookup_call c
    WHERE c.id = ANY(CAST(:ids AS uuid[])) AND c.sent_at <= :at
""")  # noqa: S608 - the columns are ours
_CALLS_NAMING = text(f"""
    SELECT {_CALL_COLUMNS}, coalesce(c.unanswered @> ARRAY[CAST(:msisdn AS bigint)], false),
           coalesce(c.overtaken @> ARRAY[CAST(:msisdn AS bigint)], false)
    FROM lookup_call c
    WHERE (c.unanswered @> ARRAY[CAST(:msisdn AS bigint)] OR c.overtaken @> ARRAY[CAST(:msisdn AS bigint)])
      AND c.sent_at <= :at
    ORDER BY c.sent_at DESC LIMIT :most
""")  # noqa: S608 - the columns are ours
_HOLDER = text(f"""
    SELECT {_CALL_COLUMNS} FROM in_flight f JOIN lookup_call c ON c.id = f.call_id
    WHERE f.msisdn = :msisdn AND c.outcome = 'calling'
""")  # noqa: S608 - the columns are ours
_MOVEMENTS = text("""
    SELECT m.request_id, a.name, m.at, m.kind, m.amount, m.balance
    FROM account_movement m JOIN account a ON a.id = m.account_id
    WHERE m.request_id = ANY(CAST(:ids AS uuid[])) AND m.at <= :at ORDER BY m.id
""")


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """An HTTP call to the provider that asked for the number, perhaps among others."""

    id: str
    lane: Lane
    sent_at: datetime
    # None: not answered by then, or never
    answered_at: datetime | None
    # numbers it asked for
    numbers: int
    # of these, charged for by the answer's codes; None where nobody can know
    billed: int | None
    # calling, answered, refused or lost
    outcome: str
    # this number may have been charged for without an answer
    lost: bool = False
    # this number was bought although another call had it in flight
    overtook: bool = False


@dataclass(frozen=True, slots=True)
class Charge:
    """A line of the statement of a direct caller's account; its amount may be for many numbers."""

    account: str
    at: datetime
    kind: Movement
    amount: int
    balance: int


@dataclass(frozen=True, slots=True)
class ToldRequest:
    """One request, with why it was asked or not, what it cost and whether its event is out."""

    row: CheckedRequest
    # decided by the moment the story is told of; what ``row`` says of the decision came later if not
    decided: bool
    # why the provider was, or would have been, asked; None where the record answered, as far as the ledger
    # and today's settings tell
    objection: Objection | None
    # what was known when it was decided
    met: PortRecord | None
    # the call whose answer it got: its own, or where it shares or was answered from store, another's
    call: ProviderCall | None
    # who bought that answer
    buyer: RequestKey | None
    # other requests among those told that got the same answer
    shared_with: tuple[RequestKey, ...]
    # None: the broker had not confirmed its event by then; always so in lane direct, which has none
    emitted_at: datetime | None
    charges: tuple[Charge, ...]


@dataclass(frozen=True, slots=True)
class ToldChange:
    """An observed change of operator, and whether its event is out."""

    change: PortChange
    emitted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of one number at a moment."""

    msisdn: str
    at: datetime
    # None: nothing was known, or what was is no longer in the ledger (then ``changes`` may say more)
    record: PortRecord | None
    # the call that has the number in flight; told of the present only
    being_bought: ProviderCall | None
    # oldest first
    requests: tuple[ToldRequest, ...]
    # requests that are older than those told
    earlier_requests: int
    # answers bought for this number in all, by requests of the whole time
    bought: int
    changes: tuple[ToldChange, ...]
    # calls that lost the number's answer, or bought it a second time; oldest first
    lost_calls: tuple[ProviderCall, ...]
    letters: tuple[DeadLetter, ...]
    # older dead letters, in which the number was looked for only as eleven plain digits
    letters_skimmed: int


@dataclass(frozen=True, slots=True)
class _Learned:
    """An answer of the ledger as a record, and when it was first stored."""

    record: PortRecord
    stored_at: datetime


def tell(
    connection: Connection, msisdn: str, *, rules: Rules, at: datetime | None = None, most: int = 10
) -> Story:
    """Return the story of a number, with its newest ``most`` requests, changes and letters.

    ``rules`` are today's: they say why a request was asked. Single statements without a lock; needs a few
    index probes, however large the tables are, and a look through the dead letters.
    """
    now = datetime.now(UTC)
    moment = now if at is None else at
    here: dict[str, Any] = {"msisdn": int(msisdn), "at": moment}
    rows = ledger.of_number(connection, msisdn, until=moment, most=most)
    total, bought = connection.execute(_COUNT, here).one()
    learned = _learned(connection, msisdn)
    changes = port_records.changes_of_number(connection, msisdn, until=moment, most=most)
    buyers = _buyers(connection, msisdn, rows)
    calls = _calls(connection, {call_id for _, call_id in buyers.values()}, moment)
    emitted = _emitted(connection, {row.batch_id for row in rows} | {one.batch_id for one in changes}, moment)
    charges = _charges(connection, rows, moment)
    lost = connection.execute(_CALLS_NAMING, here | {"most": _CALLS}).all()
    letters, skimmed = dead_letters.mentioning(connection, Mentions(msisdn), until=moment, most=most)
    holder = connection.execute(_HOLDER, here).first() if at is None or at >= now else None

    def told(row: CheckedRequest) -> ToldRequest:
        met = _met(learned, row)
        buyer, call_id = buyers.get(row.observed_at, (None, ""))
        return ToldRequest(
            row=row,
            decided=row.decided_at <= moment,
            objection=rules.objection(_request(row), met, now=row.observed_at or row.decided_at)
            if row.answered_from in {None, AnsweredFrom.LIVE}
            else None,
            met=met,
            call=calls.get(call_id),
            buyer=buyer,
            shared_with=tuple(
                other.key
                for other in rows
                if row.observed_at is not None
                and other.observed_at == row.observed_at
                and other.key != row.key
                and other.decided_at <= moment
            ),
            emitted_at=emitted.get(row.batch_id) if row.lane is not Lane.DIRECT else None,
            charges=tuple(charges.get(_call_of_caller(row), ())),
        )

    return Story(
        msisdn=msisdn,
        at=moment,
        record=_record_as_of(connection, msisdn, learned, moment),
        being_bought=None if holder is None else _call(holder, moment),
        requests=tuple(map(told, rows)),
        earlier_requests=max(0, total - len(rows)),
        bought=bought,
        changes=tuple(ToldChange(one, emitted.get(one.batch_id)) for one in changes),
        lost_calls=tuple(
            replace(_call(columns, moment), lost=was_lost, overtook=overtook)
            for *columns, was_lost, overtook in reversed(lost)
        ),
        letters=tuple(letters),
        letters_skimmed=skimmed,
    )


def _learned(connection: Connection, msisdn: str) -> list[_Learned]:
    """Every answer the ledger has for the number, in the order in which they were stored."""
    found = connection.execute(_ANSWERS, {"msisdn": int(msisdn), "most": _OBSERVATIONS})
    answers = [
        _Learned(PortRecord(msisdn, Status(status), holder, current, area, observed_at), stored_at)
        for status, holder, current, area, observed_at, stored_at in found
    ]
    return sorted(answers, key=lambda one: (one.stored_at, one.record.observed_at))


def _record(learned: Iterable[_Learned], at: datetime) -> PortRecord | None:
    """The record as it stood, as far as the ledger goes back."""
    known = (one.record for one in learned if one.stored_at <= at)
    return reduce(merged, known, None)


def _record_as_of(
    connection: Connection, msisdn: str, learned: Sequence[_Learned], at: datetime
) -> PortRecord | None:
    """The stored record where nothing was learned since; else the record of then."""
    stored = port_records.read(connection, [msisdn]).get(msisdn)
    later = {one.record.observed_at for one in learned if one.stored_at > at}
    if stored is not None and stored.observed_at <= at and stored.observed_at not in later:
        return stored
    return _record(learned, at)


def _met(learned: Iterable[_Learned], row: CheckedRequest) -> PortRecord | None:
    """What was known when the request's own call went out, or when it was decided without one."""
    sent_at = row.observed_at if row.answered_from is AnsweredFrom.LIVE else None
    if sent_at is None:
        return _record(learned, row.decided_at)
    return _record((one for one in learned if one.record.observed_at < sent_at), sent_at)


def _request(row: CheckedRequest) -> CheckRequest:
    """The request as intake understood it, as far as its row tells."""
    return CheckRequest(
        lane=row.lane,
        source=row.source,
        reference=row.reference,
        attempt=row.attempt,
        msisdn=row.msisdn,
        received_at=row.received_at,
        operator=row.asked_operator,
        failure_code=row.failure_code,
    )


def _buyers(
    connection: Connection, msisdn: str, rows: Sequence[CheckedRequest]
) -> dict[datetime | None, tuple[RequestKey, str]]:
    """Who bought the answers of these rows, and with which call, by the moment it was sent."""
    observed = {row.observed_at for row in rows if row.observed_at is not None}
    found = connection.execute(_BUYERS, {"msisdn": int(msisdn), "observed_at": list(observed)})
    return {
        observed_at: (RequestKey(source, Lane(lane), reference, attempt), str(call_id))
        for observed_at, source, lane, reference, attempt, call_id in found
    }


def _calls(connection: Connection, ids: Collection[str], at: datetime) -> dict[str, ProviderCall]:
    rows = connection.execute(_CALLS_BY_ID, {"ids": list(ids), "at": at})
    return {call.id: call for call in (_call(row, at) for row in rows)}


def _call(columns: Any, at: datetime) -> ProviderCall:
    """A call as it was then: its answer may have come later."""
    call_id, lane, sent_at, answered_at, numbers, billed, outcome = columns
    if answered_at is not None and answered_at > at:
        answered_at, billed, outcome = None, None, "calling"
    return ProviderCall(str(call_id), Lane(lane), sent_at, answered_at, numbers, billed, outcome)


def _emitted(connection: Connection, batch_ids: Collection[str], at: datetime) -> dict[str, datetime]:
    """When the events of these batches were confirmed, where they were by then."""
    rows = connection.execute(_BATCHES, {"ids": list(batch_ids)})
    return {str(batch_id): emitted for batch_id, emitted in rows if emitted is not None and emitted <= at}


def _charges(connection: Connection, rows: Sequence[CheckedRequest], at: datetime) -> dict[str, list[Charge]]:
    """Movements of callers' accounts, by the call of theirs that caused them."""
    ids = {call for call in map(_call_of_caller, rows) if call}
    found: dict[str, list[Charge]] = {}
    if ids:
        for call, name, moved_at, kind, amount, balance in connection.execute(
            _MOVEMENTS, {"ids": list(ids), "at": at}
        ):
            charge = Charge(name, moved_at, Movement(kind), amount, balance)
            found.setdefault(str(call), []).append(charge)
    return found


def _call_of_caller(row: CheckedRequest) -> str:
    """The request id of the front door's call; empty where a row has none."""
    if row.lane is not Lane.DIRECT:
        return ""
    try:
        return str(UUID(row.reference.partition(":")[0]))
    except ValueError:
        return ""
