"""Provider calls, each named before it is made, and the numbers they have in flight.

A number in ``in_flight`` is being bought: nobody else buys it before ``until``, whichever worker
or lane they are. The rows say who holds a number; Postgres decides, whatever a cache says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from worker.portability import letter_ids
from worker.portability.requests import Lane, RequestKey
from worker.storage import breaker, dead_letters, gate, ledger, port_records, statements
from worker.storage.arrays import array
from worker.storage.statements import Statement

ANSWERED, REFUSED, LOST = "answered", "refused", "lost"


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP call to the provider, about to be made."""

    id: str
    batch_id: str
    lane: Lane
    provider: str
    sent_at: datetime
    numbers: int
    # an answer cannot honestly come later than this many seconds after sent_at
    hold_seconds: float
    # the process that makes it: its presence lock
    owner: int = 0


@dataclass(frozen=True, slots=True)
class EarlyClaim:
    """A call for one request's number that is named along with the look, where nothing is known of either."""

    call: Call
    key: RequestKey
    msisdn: str
    # a record observed since may answer: then nothing is claimed
    unless_observed_since: datetime
    # of the dead letter it may have become when its message came before
    letter_id: int | None = None


@dataclass(frozen=True, slots=True)
class EndedCall:
    """How a call ended; written in the transaction that stores its answers."""

    call: Call
    # the numbers it held until now
    msisdns: Sequence[str]
    outcome: str
    answered_at: datetime | None
    # numbers charged for, as the provider's codes say; None where nobody can know (lost)
    billed: int | None
    # numbers that may have been charged for although no answer came: each is listed with its call
    unanswered: Sequence[str] = ()


# Half of a refused batch, asked again: its numbers go over to the new call. Those that were taken over or
# given up meanwhile do not: they are somebody else's to buy.
_SPLIT = text("""
    WITH moved AS (
        UPDATE in_flight SET call_id = CAST(:id AS uuid), until = now() + make_interval(secs => :hold_seconds)
        WHERE msisdn = ANY(CAST(:msisdns AS bigint[])) AND call_id = CAST(:from_id AS uuid)
        RETURNING msisdn
    ), opened AS (
        INSERT INTO lookup_call (id, batch_id, lane, provider, sent_at, numbers, outcome, until, owner)
        SELECT CAST(:id AS uuid), CAST(:batch_id AS uuid), :lane, :provider, :sent_at, count(*), 'calling',
               now() + make_interval(secs => :hold_seconds), :owner
        FROM moved HAVING count(*) > 0
    )
    SELECT msisdn FROM moved
""")

# One statement, so one commit: the call is named and its numbers are held, or neither. The numbers held come
# back only where some are not: a thousand of them cost as much as decoding an answer.
_OPEN_AND_CLAIM = """
    WITH claimed AS (
        INSERT INTO in_flight AS f (msisdn, call_id, until)
        SELECT n.msisdn, CAST(:id AS uuid), now() + make_interval(secs => :hold_seconds)
        FROM unnest(CAST(:msisdns AS bigint[])) AS n(msisdn) WHERE {condition} ORDER BY n.msisdn
        ON CONFLICT (msisdn) DO UPDATE
            SET call_id = excluded.call_id, until = excluded.until, taken_from = f.call_id
            WHERE f.msisdn = ANY(CAST(:overtaken AS bigint[]))
        RETURNING f.msisdn, f.taken_from
    ), opened AS (
        INSERT INTO lookup_call
            (id, batch_id, lane, provider, sent_at, numbers, outcome, until, owner, overtaken, overtaken_from)
        SELECT CAST(:id AS uuid), CAST(:batch_id AS uuid), :lane, :provider, :sent_at, count(*), 'calling',
               now() + make_interval(secs => :hold_seconds), :owner,
               array_agg(msisdn) FILTER (WHERE taken_from IS NOT NULL),
               array_agg(taken_from) FILTER (WHERE taken_from IS NOT NULL)
        FROM claimed HAVING count(*) > 0
    )
    SELECT counted.claimed, c.msisdn FROM (SELECT count(*) AS claimed FROM claimed) counted
    LEFT JOIN claimed c ON counted.claimed < :numbers
"""
_AGAINST = (gate.CLOSED, breaker.SET, ledger.DECIDED, dead_letters.PARKED, port_records.OBSERVED_SINCE)
_CLAIM = text(_OPEN_AND_CLAIM.format(condition="true"))
_CLAIM_EARLY = text(
    _OPEN_AND_CLAIM.format(
        condition=" AND ".join(f"NOT EXISTS ({speaks_against})" for speaks_against in _AGAINST)
    )
)

_HOLDERS = text("""
    SELECT f.msisdn, c.sent_at FROM in_flight f JOIN lookup_call c ON c.id = f.call_id
    WHERE f.msisdn = ANY(CAST(:msisdns AS bigint[]))
""")

# The provider may have billed all that a dead call asked for: what it still holds, and what was taken over
# from it. In any snapshot a number is one of these, for it changes hands in one statement.
_GIVE_UP = text("""
    WITH given_up AS (
        UPDATE lookup_call c SET outcome = 'lost', unanswered = (
            SELECT array_agg(msisdn ORDER BY msisdn) FROM (
                SELECT f.msisdn FROM in_flight f WHERE f.call_id = c.id
                UNION
                SELECT taken.msisdn
                FROM lookup_call o, unnest(o.overtaken, o.overtaken_from) AS taken(msisdn, call_id)
                WHERE o.overtaken_from @> ARRAY[c.id] AND taken.call_id = c.id
            ) asked
        )
        WHERE outcome = 'calling' AND (until < now() OR owner = ANY(CAST(:gone AS integer[]))) RETURNING id
    )
    DELETE FROM in_flight f WHERE f.call_id IN (SELECT id FROM given_up) OR (
        f.until < now()
        AND NOT EXISTS (SELECT FROM lookup_call c WHERE c.id = f.call_id AND c.outcome = 'calling')
    )
""")

# One that was given up stays listed as lost, also when its answer comes after all: others bought by then.
# Numbers that another call has overtaken stay with it. One statement: a shopper waits for each round trip.
_CLOSE = text("""
    WITH let_go AS (
        DELETE FROM in_flight
        WHERE msisdn = ANY(CAST(:msisdns AS bigint[])) AND call_id = CAST(:id AS uuid)
    )
    UPDATE lookup_call SET
        outcome = CASE outcome WHEN 'lost' THEN outcome ELSE :outcome END,
        answered_at = :answered_at, billed = :billed, numbers = :numbers,
        unanswered = COALESCE(unanswered, CAST(:unanswered AS bigint[]))
    WHERE id = CAST(:id AS uuid)
""")

# What was taken over from a call that goes on is its again: it may be answered, and nobody else is to buy it.
_RELEASE = text("""
    WITH given_back AS (
        UPDATE in_flight f SET call_id = c.id, until = c.until, taken_from = NULL
        FROM lookup_call c
        WHERE f.msisdn = ANY(CAST(:msisdns AS bigint[])) AND f.call_id = CAST(:call_id AS uuid)
            AND c.id = f.taken_from AND c.outcome = 'calling'
        RETURNING f.msisdn
    )
    DELETE FROM in_flight
    WHERE msisdn = ANY(CAST(:msisdns AS bigint[])) AND call_id = CAST(:call_id AS uuid)
        AND msisdn NOT IN (SELECT msisdn FROM given_back)
""")

_DISCARD = text("DELETE FROM lookup_call WHERE id = CAST(:id AS uuid) AND outcome = 'calling'")


def split(connection: Connection, call: Call, msisdns: Collection[str], *, from_id: str) -> set[str]:
    """Name a call for some of the numbers that another call of the same batch holds.

    Returns those it still held; where it holds none of them any more, no call is named.
    """
    parameters = _parameters(call) | {"msisdns": array(msisdns), "from_id": from_id}
    return {str(msisdn) for (msisdn,) in connection.execute(_SPLIT, parameters)}


def claiming(call: Call, msisdns: Collection[str], *, overtaken: Collection[str]) -> Statement[set[str]]:
    """Name a call and hold its numbers; says which are ours, the others are in flight elsewhere.

    ``overtaken`` numbers are taken over from whoever holds them. Where none is ours, no call is named.
    """
    parameters = _parameters(call) | {
        "msisdns": array(msisdns),
        "overtaken": array(overtaken),
        "numbers": len(msisdns),
    }

    def held(claimed: list[Any]) -> set[str]:
        if claimed[0][0] == len(msisdns):
            return set(msisdns)
        return {str(msisdn) for _, msisdn in claimed if msisdn is not None}

    return Statement(_CLAIM, parameters, held)


def claiming_early(early: EarlyClaim, account: str, *, owner: int) -> Statement[EarlyClaim | None]:
    """Name a call and hold its one number, unless something speaks against it; says which claim was made."""
    call, key = replace(early.call, owner=owner), early.key
    parameters = _parameters(call) | {
        "msisdns": array([early.msisdn]),
        "overtaken": array([]),
        "account": account,
        "source": key.source,
        "reference": key.reference,
        "attempt": key.attempt,
        "since": early.unless_observed_since,
        "letter": None if early.letter_id is None else letter_ids.written(early.letter_id),
    }
    return Statement(_CLAIM_EARLY, parameters, lambda claimed: early if claimed[0][0] else None)


def holders(connection: Connection, msisdns: Collection[str]) -> dict[str, datetime]:
    """Return, for each of these numbers in flight, when the call that buys it was sent."""
    rows = connection.execute(_HOLDERS, {"msisdns": array(msisdns)})
    return {str(msisdn): sent_at for msisdn, sent_at in rows}


def give_up(connection: Connection, *, gone: Collection[int]) -> int:
    """Mark calls as lost whose time is up or whose owners are gone; return how many numbers they let go."""
    return connection.execute(_GIVE_UP, {"gone": list(gone)}).rowcount


def closing(ended: EndedCall) -> Statement[None]:
    """Say how a call ended, and let go of the numbers it held."""
    values = {
        "id": ended.call.id,
        "outcome": ended.outcome,
        "answered_at": ended.answered_at,
        "numbers": ended.call.numbers,
        "billed": ended.billed,
        "unanswered": sorted(int(msisdn) for msisdn in ended.unanswered) or None,
        "msisdns": array(ended.msisdns),
    }
    return Statement(_CLOSE, values, statements.nothing)


def release(connection: Connection, call_id: str, msisdns: Collection[str]) -> None:
    """Let go of numbers a call held, and need not ask for.

    One that another call has overtaken stays with it; one that this call has overtaken goes back.
    """
    connection.execute(_RELEASE, {"call_id": call_id, "msisdns": array(msisdns)})


def discard(connection: Connection, call_id: str) -> None:
    """Forget a call that was named but, as it turned out, did not have to be made."""
    connection.execute(_DISCARD, {"id": call_id})


def _parameters(call: Call) -> dict[str, object]:
    return {
        "id": call.id,
        "batch_id": call.batch_id,
        "lane": call.lane.value,
        "provider": call.provider,
        "sent_at": call.sent_at,
        "numbers": call.numbers,
        "hold_seconds": call.hold_seconds,
        "owner": call.owner,
    }
