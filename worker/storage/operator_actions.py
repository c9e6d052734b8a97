"""Who stopped, started or erased what, when and why: written in the transaction that does it."""

from __future__ import annotations

from sqlalchemy import Connection, text

from worker.storage.ids import new_id

_ADD = text("""
    INSERT INTO operator_action (id, at, who, action, subject, reason)
    VALUES (:id, now(), :who, :action, :subject, :reason)
""")


def add(connection: Connection, *, who: str, action: str, subject: str, reason: str) -> None:
    """Write down what the same transaction does."""
    connection.execute(
        _ADD, {"id": new_id(), "who": who, "action": action, "subject": subject, "reason": reason}
    )
