"""Sessions of the web sites: who is logged in, by the hash of a random token that the browser alone holds.

One table for every site; ``site`` tells them apart. A session ends ``idle`` after it was last used, at
``ends_at`` at the latest, and at once where it is revoked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class WebSession:
    """A session that is good now."""

    token_hash: str
    # an operator's name, or an account's id
    subject: str
    created_at: datetime
    ends_at: datetime
    # what the next page is to say once: JSON, or None
    notice: str | None


_ADD = text("""
    INSERT INTO web_session (token_hash, site, subject, created_at, seen_at, ends_at)
    VALUES (:token_hash, :site, :subject, now(), now(), now() + CAST(:lifetime AS interval))
""")
_PRUNE = text("DELETE FROM web_session WHERE ends_at < now()")
_FIND = text("""
    SELECT token_hash, subject, created_at, ends_at, notice FROM web_session
    WHERE token_hash = :token_hash AND site = :site AND ends_at > now()
      AND seen_at > now() - CAST(:idle AS interval)
""")
# once in a while is enough for an idle time of minutes
_SEEN = text("""
    UPDATE web_session SET seen_at = now()
    WHERE token_hash = :token_hash AND seen_at < now() - interval '15 seconds'
""")
_NOTICE = text("UPDATE web_session SET notice = :notice WHERE token_hash = :token_hash")
_END = text("DELETE FROM web_session WHERE token_hash = :token_hash")
_REVOKE = text("DELETE FROM web_session WHERE site = :site AND subject = :subject")


def token_hash(token: str) -> str:
    """What is stored of a token: it is 256 random bits, so nothing slower is needed."""
    return sha256(token.encode("utf-8", "replace")).hexdigest()


def add(connection: Connection, token: str, *, site: str, subject: str, lifetime: timedelta) -> None:
    """Begin a session; those that are over go."""
    connection.execute(_PRUNE)
    values = {"token_hash": token_hash(token), "site": site, "subject": subject, "lifetime": lifetime}
    connection.execute(_ADD, values)


def find(connection: Connection, token: str, *, site: str, idle: timedelta) -> WebSession | None:
    """Return a token's session, or None where there is none that is good now."""
    values = {"token_hash": token_hash(token), "site": site, "idle": idle}
    row = connection.execute(_FIND, values).one_or_none()
    return None if row is None else WebSession(*row)


def seen(connection: Connection, session: WebSession) -> None:
    """Say that somebody used it: its idle time begins anew."""
    connection.execute(_SEEN, {"token_hash": session.token_hash})


def leave_notice(connection: Connection, session: WebSession, notice: str | None) -> None:
    """Say what the session's next page shall say once; None: nothing."""
    connection.execute(_NOTICE, {"token_hash": session.token_hash, "notice": notice})


def end(connection: Connection, session: WebSession) -> None:
    """End one session."""
    connection.execute(_END, {"token_hash": session.token_hash})


def revoke(connection: Connection, *, site: str, subject: str) -> int:
    """End every session of a subject; return how many there were."""
    return connection.execute(_REVOKE, {"site": site, "subject": subject}).rowcount
