"""Who stopped, started or erased what, when and why: written in the transaction that does it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from worker.storage.ids import new_id


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """One thing somebody did to the running service."""

    at: datetime
    # a person's login name, or which part of presend
    who: str
    # close, open, pause, resume, erase
    action: str
    # what it was done to: "gate of …", "lane …", never a number
    subject: str
    reason: str


_ADD = text("""
    INSERT INTO operator_action (id, at, who, action, subject, reason)
    VALUES (:id, now(), :who, :action, :subject, :reason)
""")
_LATEST = text("""
    SELECT at, who, action, subject, reason FROM operator_action ORDER BY at DESC, id DESC LIMIT :most
""")


def add(connection: Connection, *, who: str, action: str, subject: str, reason: str) -> None:
    """Write down what the same transaction does."""
    connection.execute(
        _ADD, {"id": new_id(), "who": who, "action": action, "subject": subject, "reason": reason}
    )


def latest(connection: Connection, *, most: int) -> list[OperatorAction]:
    """Return the latest actions, newest first."""
    return [OperatorAction(*row) for row in connection.execute(_LATEST, {"most": most})]
