"""Who stopped, started or erased what, when and why: written in the transaction that does it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from worker.portability.msisdn import mask_all
from worker.storage.ids import new_id

RESERVED = ("presend", "provider", "upkeep")
"""What presend calls itself in the history."""


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """One thing somebody did to the running service."""

    at: datetime
    # a person's login name, or which part of presend
    who: str
    # close, open, pause, resume, erase, replay, what is done to accounts and operators, log-ins and those
    # refused, and what the console shows
    action: str
    # what it was done to: "gate of …", "lane …", "account …", never a number
    subject: str
    reason: str


_ADD = text("""
    INSERT INTO operator_action (id, at, who, action, subject, reason)
    VALUES (:id, now(), :who, :action, :subject, :reason)
""")
_LATEST = text("""
    SELECT at, who, action, subject, reason FROM operator_action
    WHERE at < coalesce(CAST(:before AS timestamptz), 'infinity')
      AND (CAST(:who AS text) IS NULL OR who = CAST(:who AS text))
      AND (CAST(:action AS text) IS NULL OR action = CAST(:action AS text))
    ORDER BY at DESC, id DESC LIMIT :most
""")
_KINDS = text("""
    SELECT DISTINCT action FROM (SELECT action FROM operator_action ORDER BY at DESC LIMIT 5000) a ORDER BY 1
""")


def person(name: str) -> str:
    """The name to write down of who does it; ValueError where it names nobody."""
    who = mask_all(name.strip())
    if not who:
        raise ValueError("say who you are")
    if who in RESERVED:
        raise ValueError(f"{who!r} is what presend calls itself in the history: name a person")
    return who


def reason(text: str) -> str:
    """The reason to write down, numbers masked, for the history is kept; ValueError where there is none."""
    if not text.strip():
        raise ValueError("say why")
    return mask_all(text.strip())


def add(connection: Connection, *, who: str, action: str, subject: str, reason: str) -> None:
    """Write down what the same transaction does."""
    connection.execute(
        _ADD, {"id": new_id(), "who": who, "action": action, "subject": subject, "reason": reason}
    )


def latest(
    connection: Connection,
    *,
    most: int,
    who: str | None = None,
    action: str | None = None,
    before: datetime | None = None,
) -> list[OperatorAction]:
    """Return the latest actions, newest first: of one person, of one kind, before a moment."""
    values = {"most": most, "who": who, "action": action, "before": before}
    return [OperatorAction(*row) for row in connection.execute(_LATEST, values)]


def kinds(connection: Connection) -> list[str]:
    """Return which actions the newest 5,000 are."""
    return [str(action) for (action,) in connection.execute(_KINDS)]
