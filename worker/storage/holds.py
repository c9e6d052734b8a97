"""What calls in progress reserve of their accounts, charge, and give back.

A call opens: its look-ups are reserved, or it is refused. It settles: what it answers is charged, the rest
is free again. Only then is the answer sent, and its hold goes once it is. Whatever ends in between, no
account answers more than its balance: an answer is sent only after its charge is committed, and a charge
only where its hold still stands. Each function takes many calls at once, in one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from worker.carrier.protocol import FeeType
from worker.storage.accounts import Movement
from worker.storage.arrays import array

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
_CHARGE = text("""
    UPDATE account_hold h SET charged = least(n.charge, h.numbers)
    FROM unnest(CAST(:id AS uuid[]), CAST(:charge AS integer[])) AS n(id, charge)
    WHERE h.id = n.id AND h.charged IS NULL
    RETURNING h.id, h.account_id, h.numbers, h.charged
""")
_CHARGED = text("""
    SELECT id FROM account_hold WHERE id = ANY(CAST(:ids AS uuid[])) AND charged IS NOT NULL
""")
_EXTEND = text("""
    UPDATE account_hold SET until = now() + :seconds * interval '1 second'
    WHERE id = CAST(:id AS uuid) AND charged IS NULL
""")
_DROP = text("DELETE FROM account_hold WHERE id = ANY(CAST(:ids AS uuid[])) AND charged IS NOT NULL")
_TAKE_BACK = text("""
    DELETE FROM account_hold WHERE id = ANY(CAST(:ids AS uuid[])) AND charged IS NOT NULL
    RETURNING id, account_id, numbers, charged
""")
_LEFT_BEHIND = text("""
    DELETE FROM account_hold WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM account_hold WHERE until < now() LIMIT :most FOR UPDATE SKIP LOCKED
    )) RETURNING id, account_id, numbers, charged
""")
_LOCK = text("SELECT id, balance FROM account WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE")
_CHANGE = text("""
    WITH moved AS (
        INSERT INTO account_movement (account_id, at, kind, amount, balance, request_id, note)
        SELECT account_id, now(), kind, amount, balance, request_id, note
        FROM unnest(CAST(:account_id AS uuid[]), CAST(:kind AS text[]), CAST(:amount AS bigint[]),
                    CAST(:after AS bigint[]), CAST(:request_id AS uuid[]), CAST(:note AS text[]))
             AS n(account_id, kind, amount, balance, request_id, note)
    )
    UPDATE account a SET balance = n.balance, held = a.held - n.released
    FROM unnest(CAST(:id AS uuid[]), CAST(:balance AS bigint[]), CAST(:released AS bigint[]))
         AS n(id, balance, released)
    WHERE a.id = n.id
""")


class _Line(NamedTuple):
    """What one call does to its account."""

    account_id: str
    request_id: str
    # look-ups no longer reserved
    released: int
    # None: nothing is written down
    kind: Movement | None = None
    amount: int = 0
    note: str = ""


def open_calls(
    connection: Connection, calls: Sequence[Opening], *, hold_seconds: float
) -> list[Opened | Refused | RateLimited]:
    """Reserve what each call asks for, in order, or say why not; holds stand for ``hold_seconds``."""
    callers = {call.caller for call in calls}
    ids = {caller for caller in callers if len(caller) == _UUID_LENGTH}
    found = connection.execute(_LOCK_CALLERS, {"callers": array(callers), "ids": array(ids)}).all()
    by_caller: dict[str, _Row] = {}
    for new, old, account_id, fee_type, *rest in found:
        row = _Row(str(account_id), FeeType(fee_type), *rest)
        by_caller |= {caller: row for caller in (new, old, row.id) if caller is not None}
    results: list[Opened | Refused | RateLimited] = []
    for call in calls:
        known = by_caller.get(call.caller)
        results.append(Refused.UNKNOWN_KEY if known is None else known.open(call))
    _store(connection, list({row.id: row for row in by_caller.values()}.values()), hold_seconds)
    return results


def extend(connection: Connection, request_id: str, *, hold_seconds: float) -> bool:
    """Let a call's hold stand for ``hold_seconds`` from now; return whether there is one, uncharged."""
    return bool(connection.execute(_EXTEND, {"id": request_id, "seconds": hold_seconds}).rowcount)


def settle(connection: Connection, charges: Mapping[str, int], *, note: str = "") -> set[str]:
    """Charge calls, by their request ids; return those whose answers may be sent.

    ``note`` is for the statement. A call whose hold is gone (its time was up) is not charged; it may be sent
    only if it costs nothing. Safe to run again: a hold that is charged already was charged by the run whose
    COMMIT was not answered.
    """
    rows = connection.execute(_CHARGE, {"id": array(charges), "charge": array(charges.values())}).all()
    lines = [
        _Line(str(account_id), str(request_id), numbers, Movement.CHARGE if charged else None, -charged, note)
        for request_id, account_id, numbers, charged in rows
    ]
    _apply(connection, lines)
    done = {line.request_id for line in lines}
    missing = charges.keys() - done
    if missing:
        done |= {str(found) for (found,) in connection.execute(_CHARGED, {"ids": array(missing)})}
    free = {request_id for request_id, charge in charges.items() if not charge}
    if free:
        connection.execute(_DROP, {"ids": array(free)})
    return done | free


def sent(connection: Connection, request_ids: Collection[str]) -> None:
    """Say that the answers of charged calls were sent."""
    connection.execute(_DROP, {"ids": array(request_ids)})


def refund(connection: Connection, request_ids: Collection[str]) -> None:
    """Give back what was charged for answers that were not sent, and never will be. Safe to run again."""
    _apply(
        connection,
        [
            _Line(str(account_id), str(request_id), 0, Movement.REFUND, charged, "the caller was told -8")
            for request_id, account_id, _, charged in connection.execute(
                _TAKE_BACK, {"ids": array(request_ids)}
            )
            if charged
        ],
    )


def recover(connection: Connection) -> int:
    """Release what calls reserved whose server is gone, and list those it had charged; return how many."""
    rows = connection.execute(_LEFT_BEHIND, {"most": _AT_ONCE}).all()
    _apply(connection, [_left_behind(*map(_plain, row)) for row in rows])
    return len(rows)


def _left_behind(request_id: str, account_id: str, numbers: int, charged: int | None) -> _Line:
    if charged is None:
        note = f"{numbers} reserved for a call whose server ended before it answered"
        return _Line(account_id, request_id, numbers, Movement.RELEASED, 0, note)
    note = f"{charged} charged for a call whose server ended: its answer may not have been sent"
    return _Line(account_id, request_id, 0, Movement.UNSENT, 0, note)


def _store(connection: Connection, rows: Sequence[_Row], hold_seconds: float) -> None:
    changed = [row for row in rows if row.holds or row.calls_a_minute is not None]
    holds = [(row.id, call) for row in rows for call in row.holds]
    if changed:
        connection.execute(
            _RESERVE,
            {
                "id": array(row.id for row in changed),
                "held": array(row.held for row in changed),
                "calls_until": array(row.calls_until for row in changed),
                "call": array(call.request_id for _, call in holds),
                "account_id": array(account_id for account_id, _ in holds),
                "numbers": array(call.numbers for _, call in holds),
                "seconds": hold_seconds,
            },
        )


def _apply(connection: Connection, lines: Sequence[_Line]) -> None:
    """Change the balances as the lines say, and write each down."""
    if not lines:
        return
    ids = {line.account_id for line in lines}
    balances = {
        str(account_id): balance for account_id, balance in connection.execute(_LOCK, {"ids": array(ids)})
    }
    released: Counter[str] = Counter()
    moved: list[tuple[_Line, int]] = []
    for line in lines:
        released[line.account_id] += line.released
        balances[line.account_id] += line.amount
        if line.kind is not None:
            moved.append((line, balances[line.account_id]))
    connection.execute(
        _CHANGE,
        {
            "id": array(balances),
            "balance": array(balances.values()),
            "released": array(released[each] for each in balances),
            "account_id": array(line.account_id for line, _ in moved),
            "kind": array(line.kind for line, _ in moved),
            "amount": array(line.amount for line, _ in moved),
            "after": array(after for _, after in moved),
            "request_id": array(line.request_id for line, _ in moved),
            "note": array(line.note for line, _ in moved),
        },
    )


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int) else str(value)
