"""What a command met, in one line that says what to do next.

Errors of libraries are told by the module they come from: importing a library to recognise its errors
would make every command wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from worker.errors import PresendError, SettingsError
from worker.masking import masked

_UPGRADE = "run presend db upgrade"
_NO_TABLE, _NO_COLUMN = "42P01", "42703"
_DATABASE = "PRESEND_DATABASE_URL"
_BROKER = "PRESEND_BROKER_URL"


class Failure(click.ClickException):
    """A failure in plain words; ``exit_code`` is the command's."""

    def __init__(self, words: str, *, exit_code: int = 1) -> None:
        super().__init__(words)
        self.exit_code = exit_code  # type: ignore[misc] # click's is a class's, ours differ


def told(exc: Exception) -> Failure:
    """Return what to tell whoever ran the command."""
    return Failure(masked(_words(exc)))


def _words(exc: Exception) -> str:
    if isinstance(exc, SettingsError):
        return str(exc)
    for cause in _chain(exc):
        library = type(cause).__module__.partition(".")[0]
        if library == "psycopg":
            return _of_postgres(cause)
        if library in {"amqp", "redis"}:
            return _of_broker(cause)
    library = type(exc).__module__.partition(".")[0]
    if isinstance(exc, PresendError) or getattr(exc, "filename", None) is not None:
        words = str(exc)
    elif library == "kombu" or isinstance(exc, OSError):
        words = _of_broker(exc)
    elif library == "alembic":
        words = _of_alembic(exc)
    else:
        words = _of_unexpected(exc)
    return words


def _of_unexpected(exc: BaseException) -> str:
    return f"unexpected {type(exc).__name__}: {_first_line(exc)} (presend --debug … shows where)"


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, also where the library hid that."""
    seen: BaseException | None = exc
    while seen is not None:
        yield seen
        original = getattr(seen, "orig", None)
        if isinstance(original, BaseException):
            yield original
        seen = seen.__cause__ or seen.__context__


def _of_postgres(exc: BaseException) -> str:
    text = _first_line(exc).removeprefix("connection failed: ")
    if getattr(exc, "sqlstate", None) in {_NO_TABLE, _NO_COLUMN}:
        return f"the database lacks a table or column of this release: {_UPGRADE}"
    if "FATAL:" not in text:
        if getattr(exc, "sqlstate", None):
            return f"PostgreSQL: {text}"
        return f"PostgreSQL does not answer: {text}. Start it, or mend {_DATABASE}"
    says = text.partition("FATAL:")[2].strip()
    if says.startswith("database ") and says.endswith("does not exist"):
        create = f"createdb {says.split()[1]}"
        return f"PostgreSQL: {says}. Create it ({create}), or mend {_DATABASE}; then {_UPGRADE}"
    return f"PostgreSQL refuses the connection: {says}. Mend user and password in {_DATABASE}"


def _of_broker(exc: BaseException) -> str:
    name = type(exc).__name__
    text = str(getattr(exc, "reply_text", None) or _first_line(exc)).rstrip(".")
    if name in {"AccessRefused", "AuthenticationError", "NoPermissionError"}:
        return f"the broker refuses user or password: {text}. Mend {_BROKER}"
    if name == "NotAllowed":
        return f"the broker refuses the connection: {text}. Mend {_BROKER}"
    return f"the broker does not answer: {text}. Start it, or mend {_BROKER}"


def _of_alembic(exc: BaseException) -> str:
    text = _first_line(exc)
    if "Can't locate revision" in text:
        return f"{text}: this release does not know it. A newer presend made the database, or it is misspelt"
    return text


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [""])[0]
