"""The gate: closed for every worker and lane at once while the provider's account cannot buy.

A row in Postgres, where the claims are too: a worker that cannot read it cannot claim a number
either, so the gate fails closed, and a wiped cache cannot open it. Each account has a gate of its own: who
asks with a mistyped key shuts nobody else out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class ClosedGate:
    """Why, since when and by whom no look-up may be bought."""

    closed_at: datetime
    closed_by: str
    reason: str


BY_PROVIDER = "provider"
"""Closed by an account fault; it opens by itself once ``/balance`` is well."""

_READ = text("SELECT closed_at, closed_by, reason FROM gate WHERE account = :account")
_CLOSE = text("""
    INSERT INTO gate (account, closed_at, closed_by, reason) VALUES (:account, now(), :by, :reason)
    ON CONFLICT (account) DO NOTHING
""")
_OPEN = text("DELETE FROM gate WHERE account = :account")


def account_id(provider_url: str, apikey: str) -> str:
    """The name of an account's gate: a digest, for the key itself is stored nowhere."""
    return sha256(f"{provider_url} {apikey}".encode()).hexdigest()[:16]


def read(connection: Connection, account: str) -> ClosedGate | None:
    """Return the account's closed gate, or None while it is open."""
    row = connection.execute(_READ, {"account": account}).one_or_none()
    return None if row is None else ClosedGate(*row)


def close(connection: Connection, account: str, *, by: str, reason: str) -> bool:
    """Close the gate; return whether it was open (the first reason stands)."""
    return connection.execute(_CLOSE, {"account": account, "by": by, "reason": reason}).rowcount > 0


def reopen(connection: Connection, account: str) -> bool:
    """Open the gate; return whether it was closed."""
    return connection.execute(_OPEN, {"account": account}).rowcount > 0
