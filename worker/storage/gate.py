"""The gate: closed for every worker and lane at once while the provider's account cannot buy.

One row in Postgres, where the claims are too: a worker that cannot read it cannot claim a number
either, so the gate fails closed, and a wiped cache cannot open it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class ClosedGate:
    """Why, since when and by whom no look-up may be bought."""

    closed_at: datetime
    closed_by: str
    reason: str


BY_PROVIDER = "provider"
"""Closed by an account fault; it opens by itself once ``/balance`` is well."""

_READ = text("SELECT closed_at, closed_by, reason FROM gate")
_CLOSE = text("""
    INSERT INTO gate (closed, closed_at, closed_by, reason) VALUES (true, now(), :by, :reason)
    ON CONFLICT (closed) DO NOTHING
""")
_OPEN = text("DELETE FROM gate")


def read(connection: Connection) -> ClosedGate | None:
    """Return the closed gate, or None while it is open."""
    row = connection.execute(_READ).one_or_none()
    return None if row is None else ClosedGate(*row)


def close(connection: Connection, *, by: str, reason: str) -> bool:
    """Close the gate; return whether it was open (the first reason stands)."""
    return connection.execute(_CLOSE, {"by": by, "reason": reason}).rowcount > 0


def reopen(connection: Connection) -> bool:
    """Open the gate; return whether it was closed."""
    return connection.execute(_OPEN).rowcount > 0
