"""The people who may use the console: a name, what it may do, and a hash of its password.

Every change is in the history, and ends the operator's sessions where it must.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, text

from worker.errors import OperatorError
from worker.portability.msisdn import mask_all
from worker.storage import operator_actions, web_sessions

SITE = "console"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch


class Role(StrEnum):
    """What an operator may do."""

    VIEW = "view"
    """Look at everything, numbers masked."""
    ACT = "act"
    """Also close, open, pause, replay, and look at a number unmasked."""


@dataclass(frozen=True, slots=True)
class ConsoleOperator:
    """One operator as it stands."""

    name: str
    role: Role
    disabled: bool
    created_at: datetime
    last_log_in_at: datetime | None

    @property
    def may_act(self) -> bool:
        """Whether it may change something."""
        return self.role is Role.ACT


_COLUMNS = "name, role, disabled_at IS NOT NULL, created_at, last_log_in_at"
_ADD = text("""
    INSERT INTO console_operator (name, password_hash, role, created_at)
    VALUES (:name, :password_hash, :role, now()) ON CONFLICT (name) DO NOTHING
""")
_ALL = text(f"SELECT {_COLUMNS} FROM console_operator ORDER BY name")  # noqa: S608 - the columns are ours
_FIND = text(f"SELECT {_COLUMNS} FROM console_operator WHERE name = :name")  # noqa: S608
_HASH = text("SELECT password_hash FROM console_operator WHERE name = :name AND disabled_at IS NULL")
_KNOWN = text("SELECT EXISTS (SELECT FROM console_operator WHERE name = :name)")
_LOGGED_IN = text("UPDATE console_operator SET last_log_in_at = now() WHERE name = :name")
_SET_PASSWORD = text("UPDATE console_operator SET password_hash = :password_hash WHERE name = :name")
_SET_DISABLED = text("""
    UPDATE console_operator SET disabled_at = CASE WHEN :disabled THEN coalesce(disabled_at, now()) END
    WHERE name = :name
""")
_SET_ROLE = text("UPDATE console_operator SET role = :role WHERE name = :name")


def add(connection: Connection, name: str, *, password_hash: str, role: Role, by: str) -> None:
    """Let somebody in; ``OperatorError`` where the name is taken or cannot be one."""
    if not _NAME(name) or mask_all(name) != name or name in operator_actions.RESERVED:
        raise OperatorError(
            f"{mask_all(name)!r} cannot name an operator: use 1 to 64 letters, digits, dots, dashes and "
            "underscores, no mobile number and none of presend's own names"
        )
    values = {"name": name, "password_hash": password_hash, "role": role.value}
    if not connection.execute(_ADD, values).rowcount:
        raise OperatorError(
            f"there is an operator {name!r} already: choose another name, or change the password with "
            f"presend console operator password {name}"
        )
    _write_down(connection, by, "create", name, f"role {role}")


def every(connection: Connection) -> list[ConsoleOperator]:
    """Return every operator, by name."""
    return [_operator(row) for row in connection.execute(_ALL)]


def find(connection: Connection, name: str) -> ConsoleOperator | None:
    """Return an operator that may log in; None where there is none, or it is disabled."""
    row = connection.execute(_FIND, {"name": name}).one_or_none()
    found = None if row is None else _operator(row)
    return None if found is None or found.disabled else found


def password_hash(connection: Connection, name: str) -> str | None:
    """Return the hash of an operator's password; None where it may not log in."""
    found: str | None = connection.execute(_HASH, {"name": name}).scalar_one_or_none()
    return found


def logged_in(connection: Connection, name: str, *, address: str) -> None:
    """Write down that somebody logged in."""
    connection.execute(_LOGGED_IN, {"name": name})
    _write_down(connection, name, "log_in", name, f"from {address}")


def log_in_refused(connection: Connection, name: str, *, address: str) -> None:
    """Write down that a password was wrong; a name that no operator has is not kept: it may be a password."""
    known = connection.execute(_KNOWN, {"name": name}).scalar_one()
    operator_actions.add(
        connection,
        who="presend",
        action="refuse_log_in",
        subject=f"operator {name}" if known else "an unknown name",
        reason=f"from {address}",
    )


def set_password(connection: Connection, name: str, password_hash: str, *, by: str) -> None:
    """Give an operator another password; its sessions end."""
    _changed(connection.execute(_SET_PASSWORD, {"name": name, "password_hash": password_hash}).rowcount, name)
    web_sessions.revoke(connection, site=SITE, subject=name)
    _write_down(connection, by, "password", name, "a new one was set")


def set_role(connection: Connection, name: str, role: Role, *, by: str) -> None:
    """Let an operator do more, or less; at once, also in its open sessions."""
    _changed(connection.execute(_SET_ROLE, {"name": name, "role": role.value}).rowcount, name)
    _write_down(connection, by, "role", name, f"role {role}")


def set_disabled(connection: Connection, name: str, disabled: bool, *, by: str, reason: str) -> None:
    """Shut an operator out, its sessions included; or let it in again."""
    _changed(connection.execute(_SET_DISABLED, {"name": name, "disabled": disabled}).rowcount, name)
    if disabled:
        web_sessions.revoke(connection, site=SITE, subject=name)
    _write_down(connection, by, "disable" if disabled else "enable", name, reason)


def _changed(rows: int, name: str) -> None:
    if not rows:
        raise OperatorError(
            f"there is no operator {mask_all(name)!r}: presend console operator list shows them"
        )


def _write_down(connection: Connection, by: str, action: str, name: str, reason: str) -> None:
    operator_actions.add(connection, who=by, action=action, subject=f"operator {name}", reason=reason)


def _operator(row: Any) -> ConsoleOperator:
    name, role, *rest = row
    return ConsoleOperator(name, Role(role), *rest)
