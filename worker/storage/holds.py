"""What calls in progress reserve of their accounts, charge, and give back.

A call opens: its look-ups are reserved, or it is refused. It settles: what it answers is charged, the rest
is free again. Only then is the answer sent, and its hold goes once it is. Whatever ends in between, no
account answers more than its balance: an answer is sent only after its charge is committed, and a charge
only where its hold still stands. Each function takes many calls at once, in one transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from worker.carrier.protocol import FeeType
from worker.storage.accounts import Movement
from worker.storage.arrays import array
from worker.storage.statements import COMMIT, Statement, nothing, together

_MINUTE = timedelta(minutes=1)
_AT_ONCE = 1000
_UUID_LENGTH = 36
"""A key's hash has 64 characters."""


class Opening(NamedTuple):
    """A call that wants to be opened."""

    request_id: str
    # the hash of the caller's key, or the account's id where the caller is known already
    caller: str
    # look-ups to reserve; 0: only the key is checked
    numbers: int
    # against the account's calls a minute
    counted: bool = True


class Refused(StrEnum):
    """Why an account may not call."""

    UNKNOWN_KEY = "unknown_key"
    DISABLED = "disabled"
    LOW_BALANCE = "low_balance"


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Too many calls: how many a minute are allowed, and in how many seconds the next one is."""

    calls_a_minute: int
    retry_after_seconds: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A call that may go on."""

    account_id: str
    fee_type: FeeType
    # look-ups left to other calls
    available: int


@dataclass(slots=True)
class _Row:
    """An account, locked, as the calls of one transaction change it."""

    id: str
    fee_type: FeeType
    balance: int
    held: int
    credit_limit: int | None
    calls_a_minute: int | None
    calls_until: datetime | None
    disabled: bool
    now: datetime
    holds: list[Opening] = field(default_factory=list)

    def open(self, call: Opening) -> Opened | Refused | RateLimited:
        if self.disabled:
            return Refused.DISABLED
        if self.calls_a_minute is not None and call.counted:
            limited = self._count(self.calls_a_minute)
            if limited is not None:
                return limited
        if call.numbers:
            if call.numbers > self._room():
                return Refused.LOW_BALANCE
            self.held += call.numbers
            self.holds.append(call)
        return Opened(self.id, self.fee_type, self.balance - self.held)

    def _room(self) -> float:
        if self.fee_type is FeeType.PREPAID:
            return self.balance - self.held
        return float("inf") if self.credit_limit is None else self.balance - self.held + self.credit_limit

    def _count(self, limit: int) -> RateLimited | None:
        """A minute's calls may come at once; after that they are let in evenly (the leaky bucket)."""
        used_up_at = max(self.calls_until or self.now, self.now) + _MINUTE / limit
        over = used_up_at - self.now - _MINUTE
        if over > timedelta(0):
            return RateLimited(limit, over.total_seconds())
        self.calls_until = used_up_at
        return None


_LOCK_CALLERS = text("""
    SELECT key_hash, CASE WHEN old_key_until > now() THEN old_key_hash END,
           id, fee_type, balance, held, credit_limit, calls_a_minute, calls_until, status = 'disabled',
           clock_timestamp()
    FROM account
    WHERE key_hash = ANY(CAST(:callers AS text[])) OR old_key_hash = ANY(CAST(:callers AS text[]))
        OR id = ANY(CAST(:ids AS uuid[]))
    ORDER BY id FOR UPDATE
""")
# Not waited for on the disk: a hold that Postgres forgets in a crash is one its call cannot be charged by.
_RESERVE = text("""
    WITH holding AS (
        INSERT INTO account_hold (id, account_id, numbers, until)
        SELECT id, account_id, numbers, now() + :seconds * interval '1 second'
        FROM unnest(CAST(:call AS uuid[]), CAST(:account_id AS uuid[]), CAST(:numbers AS integer[]))
             AS n(id, account_id, numbers)
    ), relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
    UPDATE account a SET held = n.held, calls_until = n.calls_until
    FROM unnest(CAST(:id AS uuid[]), CAST(:held AS bigint[]), CAST(:calls_until AS timestamptz[]))
         AS n(id, held, calls_until), relaxed
    WHERE a.id = n.id
""")
_AND_MOVE = """
    , sums AS (
        SELECT account_id AS id, sum(released)::bigint AS released, sum(amount)::bigint AS amount
        FROM lines GROUP BY account_id
    ), locked AS (
        SELECT a.id FROM account a JOIN sums USING (id) ORDER BY a.id FOR UPDATE OF a
    ), changed AS (
        UPDATE account a SET balance = a.balance + s.amount, held = a.held - s.released
        FROM sums s JOIN locked USING (id)
        WHERE a.id = s.id
        RETURNING a.id, a.balance - s.amount AS before
    ), moved AS (
        INSERT INTO account_movement (account_id, at, kind, amount, balance, request_id, note)
        SELECT l.account_id, now(), l.kind, l.amount,
               c.before + sum(l.amount) OVER (PARTITION BY l.account_id ORDER BY l.place), l.id, l.note
        FROM lines l JOIN changed c ON c.id = l.account_id
        WHERE l.kind IS NOT NULL ORDER BY l.place
    )
"""
"""Goes on from ``lines``, what calls do to their accounts: a call, its account, the look-ups that are no
longer reserved, its movement's amount, kind (NULL: nothing is written down), note and place."""
_SETTLE = text(f"""
    WITH call AS (
        SELECT * FROM unnest(CAST(:id AS uuid[]), CAST(:charge AS integer[])) WITH ORDINALITY
            AS n(id, charge, place)
    ), charged AS (
        UPDATE account_hold h SET charged = least(c.charge, h.numbers) FROM call c
        WHERE h.id = c.id AND c.charge > 0 AND h.charged IS NULL
        RETURNING h.id, h.account_id, h.numbers, h.charged, c.place
    ), freed AS (
        DELETE FROM account_hold h USING call c
        WHERE h.id = c.id AND c.charge = 0 AND h.charged IS NULL
        RETURNING h.id, h.account_id, h.numbers, c.place
    ), lines AS (
        SELECT id, account_id, numbers AS released, -charged AS amount,
               '{Movement.CHARGE}' AS kind, CAST(:note AS text) AS note, place FROM charged
        UNION ALL SELECT id, account_id, numbers, 0, NULL, '', place FROM freed
    ) {_AND_MOVE}
    SELECT id FROM charged
    UNION ALL SELECT h.id FROM account_hold h JOIN call USING (id) WHERE h.charged IS NOT NULL
""")  # noqa: S608 - the words are ours
_EXTEND = text("""
    UPDATE account_hold SET until = now() + :seconds * interval '1 second'
    WHERE id = CAST(:id AS uuid) AND charged IS NULL
""")
_DROP = text("DELETE FROM account_hold WHERE id = ANY(CAST(:ids AS uuid[])) AND charged IS NOT NULL")
_REFUND = text(f"""
    WITH taken_back AS (
        DELETE FROM account_hold WHERE id = ANY(CAST(:ids AS uuid[])) AND charged IS NOT NULL
        RETURNING id, account_id, charged
    ), lines AS (
        SELECT id, account_id, 0 AS released, charged AS amount, '{Movement.REFUND}' AS kind,
               'the caller was told -8' AS note, row_number() OVER () AS place
        FROM taken_back
    ) {_AND_MOVE}
    SELECT count(*) FROM taken_back
""")  # noqa: S608 - the words are ours
_RECOVER = text(f"""
    WITH left_behind AS (
        DELETE FROM account_hold WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM account_hold WHERE until < now() LIMIT :most FOR UPDATE SKIP LOCKED
        )) RETURNING id, account_id, numbers, charged
    ), lines AS (
        SELECT id, account_id, 0 AS amount, row_number() OVER () AS place,
            CASE WHEN charged IS NULL THEN numbers ELSE 0 END AS released,
            CASE WHEN charged IS NULL THEN '{Movement.RELEASED}' ELSE '{Movement.UNSENT}' END AS kind,
            CASE WHEN charged IS NULL
                THEN numbers || ' reserved for a call whose server ended before it answered'
                ELSE charged || ' charged for a call whose server ended: its answer may not have been sent'
            END AS note
        FROM left_behind
    ) {_AND_MOVE}
    SELECT count(*) FROM left_behind
""")  # noqa: S608 - the words are ours


def open_calls(
    connection: Connection, calls: Sequence[Opening], *, hold_seconds: float, ends: bool = False
) -> list[Opened | Refused | RateLimited]:
    """Reserve what each call asks for, in order, or say why not; holds stand for ``hold_seconds``.

    ``ends`` says that nothing else is done in the transaction: its COMMIT goes along.
    """
    callers = {call.caller for call in calls}
    ids = {caller for caller in callers if len(caller) == _UUID_LENGTH}
    (by_caller,) = together(
        connection, Statement(_LOCK_CALLERS, {"callers": array(callers), "ids": array(ids)}, _by_caller)
    )
    results: list[Opened | Refused | RateLimited] = []
    for call in calls:
        known = by_caller.get(call.caller)
        results.append(Refused.UNKNOWN_KEY if known is None else known.open(call))
    last = _reserving(list({row.id: row for row in by_caller.values()}.values()), hold_seconds)
    if ends:
        last.append(COMMIT)
    if last:
        together(connection, *last)
    return results


def extend(connection: Connection, request_id: str, *, hold_seconds: float) -> bool:
    """Let a call's hold stand for ``hold_seconds`` from now; return whether there is one, uncharged."""
    return bool(connection.execute(_EXTEND, {"id": request_id, "seconds": hold_seconds}).rowcount)


def settling(charges: Mapping[str, int], *, note: str = "") -> Statement[set[str]]:
    """Charge calls, by their request ids; return those whose answers may be sent.

    ``note`` is for the statement. A call whose hold is gone (its time was up) is not charged; it may be sent
    only if it costs nothing. Safe to run again: a hold that is charged already was charged by the run whose
    COMMIT was not answered, and is found once that has ended.
    """
    free = {request_id for request_id, charge in charges.items() if not charge}
    return Statement(
        _SETTLE,
        {"id": array(charges), "charge": array(charges.values()), "note": note},
        lambda rows: {str(request_id) for (request_id,) in rows} | free,
    )


def sent(request_ids: Collection[str]) -> Statement[None]:
    """Say that the answers of charged calls were sent."""
    return Statement(_DROP, {"ids": array(request_ids)}, nothing)


def refunding(request_ids: Collection[str]) -> Statement[None]:
    """Give back what was charged for answers that were not sent, and never will be. Safe to run again."""
    return Statement(_REFUND, {"ids": array(request_ids)}, nothing)


def recover(connection: Connection) -> int:
    """Release what calls reserved whose server is gone, and list those it had charged; return how many."""
    return int(connection.execute(_RECOVER, {"most": _AT_ONCE}).scalar_one())


def _by_caller(rows: Iterable[Any]) -> dict[str, _Row]:
    """The accounts by everything that may name them: their keys' hashes and their ids."""
    by_caller: dict[str, _Row] = {}
    for new, old, account_id, fee_type, *rest in rows:
        row = _Row(str(account_id), FeeType(fee_type), *rest)
        by_caller |= {caller: row for caller in (new, old, row.id) if caller is not None}
    return by_caller


def _reserving(rows: Sequence[_Row], hold_seconds: float) -> list[Statement[None]]:
    """The statement that stores what calls did to their accounts' rows; none where they did nothing."""
    changed = [row for row in rows if row.holds or row.calls_a_minute is not None]
    holds = [(row.id, call) for row in changed for call in row.holds]
    if not changed:
        return []
    values = {
        "id": array(row.id for row in changed),
        "held": array(row.held for row in changed),
        "calls_until": array(row.calls_until for row in changed),
        "call": array(call.request_id for _, call in holds),
        "account_id": array(account_id for account_id, _ in holds),
        "numbers": array(call.numbers for _, call in holds),
        "seconds": hold_seconds,
    }
    return [Statement(_RESERVE, values, nothing)]
