"""Accounts of the front door's callers: opened, topped up, switched off, given new keys.

A key is shown once and stored as its SHA-256 alone: 32 random characters hold 165 bits, so nothing slower
is needed, and a wrong key costs the same index probe as a right one, whatever its first characters are.
Every change of a balance is a movement, written in the transaction that makes it.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, text

from worker.carrier.protocol import FeeType
from worker.errors import AccountError
from worker.portability.msisdn import mask_all
from worker.storage import operator_actions, web_sessions
from worker.storage.ids import new_id

KEY_LENGTH = 32
QUERY_SITE = "query"
"""The web site whose sessions are accounts'."""
_ALPHABET = string.digits + string.ascii_lowercase
_JOB = "job "
MOST_LOOKUPS = 10**15
"""Of one movement, and of a balance."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch


class Movement(StrEnum):
    """Why a balance moved, or what a call left behind."""

    OPENING = "opening"
    TOPUP = "topup"
    CHARGE = "charge"
    """Answers with code 0 of one call."""
    REFUND = "refund"
    """A charge whose answer was not sent, for the caller had been told -8."""
    RELEASED = "released"
    """Amount 0: the server ended before the call was answered; what it reserved is free again."""
    UNSENT = "unsent"
    """Amount 0: the server ended after the call was charged; its answer may not have been sent."""


@dataclass(frozen=True, slots=True)
class Account:
    """One caller's account as it stands."""

    id: str
    name: str
    fee_type: FeeType
    # look-ups left; a postpaid one's may be negative
    balance: int
    # look-ups reserved by calls in progress
    held: int
    # how far below zero a postpaid balance may fall; None: without end
    credit_limit: int | None
    # calls allowed a minute; None: no limit
    calls_a_minute: int | None
    disabled: bool
    created_at: datetime
    # until when the key before the present one is good
    old_key_until: datetime | None


TAKEN_BACK = "taken_back"
"""What a statement calls a top-up of less than nothing."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One line of a statement."""

    # counts up
    number: int
    at: datetime
    kind: Movement
    amount: int
    balance: int
    request_id: str | None
    note: str

    @property
    def name(self) -> str:
        """What it is called: a top-up of less than nothing takes back."""
        return TAKEN_BACK if self.kind is Movement.TOPUP and self.amount < 0 else self.kind.value

    @property
    def job_id(self) -> str | None:
        """The job that a charge was for, which may be gone."""
        words, _, job_id = self.note.partition(_JOB)
        return job_id if self.kind is Movement.CHARGE and job_id and not words else None


_COLUMNS = (
    "id, name, fee_type, balance, held, credit_limit, calls_a_minute, status = 'disabled', created_at, "
    "CASE WHEN old_key_until > now() THEN old_key_until END"
)
_CREATE = text(f"""
    INSERT INTO account (id, name, key_hash, fee_type, balance, held, credit_limit, calls_a_minute, status,
                         created_at)
    VALUES (:id, :name, :key_hash, :fee_type, :balance, 0, :credit_limit, :calls_a_minute, 'active', now())
    ON CONFLICT (name) DO NOTHING RETURNING {_COLUMNS}
""")  # noqa: S608 - the columns are ours
_ALL = text(f"SELECT {_COLUMNS} FROM account ORDER BY name")  # noqa: S608
_LOCK = text(f"SELECT {_COLUMNS} FROM account WHERE name = :name FOR UPDATE")  # noqa: S608
_ADD_TO_BALANCE = text("UPDATE account SET balance = balance + :amount WHERE id = :id")
_SET_STATUS = text("UPDATE account SET status = :status WHERE id = :id")
_SET_KEY = text("""
    UPDATE account SET old_key_hash = key_hash, old_key_until = now() + :grace, key_hash = :key_hash
    WHERE id = :id
""")
_MOVE = text("""
    INSERT INTO account_movement (account_id, at, kind, amount, balance, request_id, note)
    VALUES (:account_id, now(), :kind, :amount, :balance, NULL, :note)
""")
_STATEMENT = text("""
    SELECT m.id, m.at, m.kind, m.amount, m.balance, m.request_id, m.note
    FROM account_movement m JOIN account a ON a.id = m.account_id
    WHERE a.name = :name AND m.at >= coalesce(CAST(:since AS timestamptz), '-infinity')
      AND m.at < coalesce(CAST(:until AS timestamptz), 'infinity')
    ORDER BY m.id
""")

_OF_KEY = text(f"""
    SELECT {_COLUMNS} FROM account
    WHERE key_hash = :key_hash OR (old_key_hash = :key_hash AND old_key_until > now())
""")  # noqa: S608
_OF_ID = text(f"SELECT {_COLUMNS} FROM account WHERE id = CAST(:id AS uuid)")  # noqa: S608
_MOVED = "SELECT id, at, kind, amount, balance, request_id, note FROM account_movement"
_NEWEST = text(f"""
    {_MOVED} WHERE account_id = CAST(:id AS uuid) AND (CAST(:before AS bigint) IS NULL OR id < :before)
    ORDER BY id DESC LIMIT :most
""")
_OLDEST = text(f"""
    {_MOVED} WHERE account_id = CAST(:id AS uuid) AND id > :after ORDER BY id LIMIT :most
""")


def key_hash(key: str) -> str:
    """What is stored of a key."""
    return sha256(key.encode()).hexdigest()


def create(
    connection: Connection,
    name: str,
    *,
    fee_type: FeeType,
    balance: int,
    by: str,
    credit_limit: int | None = None,
    calls_a_minute: int | None = None,
) -> tuple[Account, str]:
    """Open an account; return it with its key, which nobody can be told again."""
    if not _NAME(name) or mask_all(name) != name:
        raise AccountError(
            f"{mask_all(name)!r} cannot name an account: use 1 to 64 letters, digits, dots, dashes and "
            "underscores, and no mobile number"
        )
    if fee_type is FeeType.PREPAID and (balance < 0 or credit_limit is not None):
        what = "has no credit limit" if credit_limit is not None else "is never negative"
        raise AccountError(f"a prepaid balance {what}: say --fee-type postpaid, or leave that out")
    _require_possible(balance, credit_limit or 0)
    key = _new_key()
    values = {"name": name, "balance": balance, "credit_limit": credit_limit}
    row = connection.execute(
        _CREATE,
        values
        | {
            "id": new_id(),
            "key_hash": key_hash(key),
            "fee_type": fee_type.value,
            "calls_a_minute": calls_a_minute,
        },
    ).one_or_none()
    if row is None:
        raise AccountError(f"there is an account {name!r} already: choose another name, or rotate its key")
    account = _account(row)
    _move(connection, account, Movement.OPENING, balance, after=balance, note=f"opened by {by}")
    _write_down(connection, account, by, "create", f"{fee_type.value}, balance {balance}")
    return account, key


def every(connection: Connection) -> list[Account]:
    """Return every account, by name."""
    return [_account(row) for row in connection.execute(_ALL)]


def top_up(connection: Connection, name: str, amount: int, *, by: str, note: str = "") -> Account:
    """Add to a balance, or take from it; return the account as it stands then."""
    account = _locked(connection, name)
    _require_possible(amount, account.balance + amount)
    if account.fee_type is FeeType.PREPAID and account.balance + amount < account.held:
        raise AccountError(
            f"{name!r} has {account.balance}, of which {account.held} are reserved by calls in progress: "
            f"take at most {account.balance - account.held}"
        )
    connection.execute(_ADD_TO_BALANCE, {"amount": amount, "id": account.id})
    words = f"by {by}: {mask_all(note)}" if note else f"by {by}"
    _move(connection, account, Movement.TOPUP, amount, after=account.balance + amount, note=words)
    _write_down(connection, account, by, "topup", f"{amount:+d} {mask_all(note)}".strip())
    return _locked(connection, name)


def set_disabled(connection: Connection, name: str, disabled: bool, *, by: str, reason: str) -> Account:
    """Let an account ask nothing (-6), or ask again."""
    account = _locked(connection, name)
    connection.execute(_SET_STATUS, {"status": "disabled" if disabled else "active", "id": account.id})
    _write_down(connection, account, by, "disable" if disabled else "enable", reason)
    return _locked(connection, name)


def rotate(
    connection: Connection, name: str, *, grace: timedelta, by: str, drop_older: bool = False
) -> tuple[Account, str]:
    """Give an account a new key; the present one stays good for ``grace``.

    An older one that is still good ends only where ``drop_older`` says so, or the present one is to end, too.
    """
    account = _locked(connection, name)
    if account.old_key_until is not None and grace and not drop_older:
        until = account.old_key_until.astimezone(UTC)
        raise AccountError(
            f"{name!r} has two keys, and a third would end the older one, which is good until "
            f"{until:%Y-%m-%d %H:%M} UTC: wait until then, or say --drop-older-key"
        )
    key = _new_key()
    web_sessions.revoke(connection, site=QUERY_SITE, subject=account.id)  # begun with the key that goes
    connection.execute(_SET_KEY, {"grace": grace, "key_hash": key_hash(key), "id": account.id})
    _write_down(connection, account, by, "rotate", f"the key before is good for {grace}")
    return _locked(connection, name), key


def statement(
    connection: Connection, name: str, *, since: datetime | None = None, until: datetime | None = None
) -> Iterator[Moved]:
    """Return an account's movements from ``since`` to before ``until``, oldest first."""
    _locked(connection, name)  # so that an unknown name is told
    rows = connection.execution_options(yield_per=1000).execute(
        _STATEMENT, {"name": name, "since": since, "until": until}
    )
    return map(_moved, rows)


def of_key(connection: Connection, key: str) -> Account | None:
    """Return the account a key is good for now."""
    row = connection.execute(_OF_KEY, {"key_hash": key_hash(key)}).one_or_none()
    return None if row is None else _account(row)


def of_id(connection: Connection, account_id: str) -> Account | None:
    """Return an account by its id."""
    row = connection.execute(_OF_ID, {"id": account_id}).one_or_none()
    return None if row is None else _account(row)


def newest_movements(
    connection: Connection, account_id: str, *, most: int, before: int | None = None
) -> list[Moved]:
    """Return an account's movements, newest first, older than number ``before`` where that is given."""
    rows = connection.execute(_NEWEST, {"id": account_id, "most": most, "before": before})
    return list(map(_moved, rows))


def movements(connection: Connection, account_id: str, *, after: int, most: int) -> list[Moved]:
    """Return an account's movements past number ``after``, oldest first."""
    return list(map(_moved, connection.execute(_OLDEST, {"id": account_id, "most": most, "after": after})))


def job_note(job_id: str) -> str:
    """The note of a charge for a job's numbers."""
    return f"{_JOB}{job_id}"


def _new_key() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LENGTH))


def _require_possible(*lookups: int) -> None:
    if max(map(abs, lookups)) > MOST_LOOKUPS:
        raise AccountError(f"too many look-ups: an account holds {MOST_LOOKUPS:,} at most")


def _locked(connection: Connection, name: str) -> Account:
    row = connection.execute(_LOCK, {"name": name}).one_or_none()
    if row is None:
        raise AccountError(f"there is no account {mask_all(name)!r}: presend account list shows them")
    return _account(row)


def _move(
    connection: Connection, account: Account, kind: Movement, amount: int, *, after: int, note: str
) -> None:
    connection.execute(
        _MOVE,
        {"account_id": account.id, "kind": kind.value, "amount": amount, "balance": after, "note": note},
    )


def _write_down(connection: Connection, account: Account, by: str, action: str, reason: str) -> None:
    operator_actions.add(connection, who=by, action=action, subject=f"account {account.name}", reason=reason)


def _moved(row: Any) -> Moved:
    number, at, kind, amount, balance, request_id, note = row
    return Moved(number, at, Movement(kind), amount, balance, request_id and str(request_id), note)


def _account(row: Any) -> Account:
    account_id, name, fee_type, *rest = row
    return Account(str(account_id), name, FeeType(fee_type), *rest)
