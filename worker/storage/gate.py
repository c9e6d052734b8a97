"""The gate: closed for every worker and lane at once while the provider's account cannot buy.

A row in Postgres, where the claims are too: a worker that cannot read it cannot claim a number
either, so the gate fails closed, and a wiped cache cannot open it. Each account has a gate of its own: who
asks with a mistyped key shuts nobody else out. A gate closed by hand is for every account, and stays closed
until somebody opens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Connection, text

from worker.storage import operator_actions, statements
from worker.storage.statements import Statement


@dataclass(frozen=True, slots=True)
class ClosedGate:
    """Why, since when and by whom no look-up may be bought."""

    # a digest of provider and key; EVERY_ACCOUNT: closed by hand
    account: str
    closed_at: datetime
    closed_by: str
    reason: str

    @property
    def by_hand(self) -> bool:
        """Whether a person closed it, so that only a person opens it."""
        return self.closed_by != BY_PROVIDER


BY_PROVIDER = "provider"
"""Closed by an account fault; it opens by itself once ``/balance`` is well."""
BY_UPKEEP = "upkeep"
"""Who opens it then."""
EVERY_ACCOUNT = ""
"""The account of a gate closed by hand."""

_COLUMNS = "account, closed_at, closed_by, reason"
# '' sorts before every digest: what was closed by hand speaks first
_READ = text(f"SELECT {_COLUMNS} FROM gate WHERE account IN (:account, '') ORDER BY account LIMIT 1")  # noqa: S608
CLOSED = "SELECT FROM gate WHERE account IN (:account, '')"
"""As a subquery: whether there is one that keeps the account from buying."""
_ALL = text(f"SELECT {_COLUMNS} FROM gate ORDER BY account")  # noqa: S608 - the columns are ours
_CLOSE = text("""
    INSERT INTO gate (account, closed_at, closed_by, reason) VALUES (:account, now(), :by, :reason)
    ON CONFLICT (account) DO NOTHING
""")
_OPEN = text("DELETE FROM gate WHERE account = :account")


def account_id(provider_url: str, apikey: str) -> str:
    """The name of an account's gate: a digest, for the key itself is stored nowhere."""
    return sha256(f"{provider_url} {apikey}".encode()).hexdigest()[:16]


def read(connection: Connection, account: str) -> ClosedGate | None:
    """Return the gate that keeps this account from buying, or None while it may."""
    return statements.run(connection, reading(account))


def reading(account: str) -> Statement[ClosedGate | None]:
    """The statement of :func:`read`."""
    return Statement(_READ, {"account": account}, lambda rows: ClosedGate(*rows[0]) if rows else None)


def closed(connection: Connection) -> list[ClosedGate]:
    """Return every closed gate, the one closed by hand first."""
    return [ClosedGate(*row) for row in connection.execute(_ALL)]


def close(connection: Connection, account: str, *, by: str, reason: str) -> bool:
    """Close the gate; return whether it was open (the first reason stands). Run it in a transaction.

    A person who closes a gate that was closed by hand already is in the history with their reason.
    """
    newly = connection.execute(_CLOSE, {"account": account, "by": by, "reason": reason}).rowcount > 0
    if newly or account == EVERY_ACCOUNT:
        operator_actions.add(connection, who=by, action="close", subject=subject(account), reason=reason)
    return newly


def reopen(connection: Connection, account: str, *, by: str, reason: str) -> bool:
    """Open the gate; return whether it was closed. Run it in a transaction."""
    newly = connection.execute(_OPEN, {"account": account}).rowcount > 0
    if newly:
        operator_actions.add(connection, who=by, action="open", subject=subject(account), reason=reason)
    return newly


def subject(account: str) -> str:
    """The gate's name in the history."""
    return "gate of every account" if account == EVERY_ACCOUNT else f"gate of account {account}"
