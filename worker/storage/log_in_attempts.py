"""Log-in attempts: who tries too often waits, whichever process of a site is asked.

Each attempt is counted before the password is looked at, so that a hundred at once are no hundred guesses.
Names and addresses are kept as digests: what was typed as a name may have been a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection, text

FORGOTTEN_AFTER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """How often somebody may fail before they wait, and for how long at most."""

    # attempts in a row
    failures: int
    longest_wait_seconds: float


# Past the allowance each further attempt doubles the wait; one during the wait is refused and not counted.
_COUNT = text("""
    INSERT INTO log_in_attempt AS a (site, who, failures, last_at, wait_until)
    VALUES (:site, :who, 1, now(), now())
    ON CONFLICT (site, who) DO UPDATE SET
        failures = CASE
            WHEN a.last_at < now() - make_interval(secs => :forgotten) THEN 1 ELSE a.failures + 1 END,
        last_at = now(),
        wait_until = CASE
            WHEN a.last_at < now() - make_interval(secs => :forgotten) OR a.failures + 1 < :allowed
            THEN now()
            ELSE now() + make_interval(secs => LEAST(
                :longest, :first_wait * power(2, LEAST(a.failures + 1 - :allowed, 20)))) END
    WHERE a.wait_until <= now()
    RETURNING 0.0::float8
""")
_WAIT = text("""
    SELECT GREATEST(0, EXTRACT(EPOCH FROM wait_until - now()))::float8 FROM log_in_attempt
    WHERE site = :site AND who = :who
""")
_FORGIVE = text("DELETE FROM log_in_attempt WHERE site = :site AND who = :who")
_UNCOUNT = text("""
    UPDATE log_in_attempt SET failures = GREATEST(0, failures - 1), wait_until = now()
    WHERE site = :site AND who = :who
""")
_PRUNE = text("DELETE FROM log_in_attempt WHERE last_at < now() - interval '1 day'")


def count(
    connection: Connection, site: str, allowances: Mapping[str, Allowance], *, first_wait_seconds: float
) -> float:
    """Count an attempt of each of these; return how many seconds to wait, 0 where it may go on.

    Run it in a transaction.
    """
    connection.execute(_PRUNE)
    longest = 0.0
    for who, allowed in sorted(allowances.items()):
        values = {"site": site, "who": _digest(who)}
        counted = connection.execute(
            _COUNT,
            values
            | {
                "allowed": allowed.failures,
                "forgotten": FORGOTTEN_AFTER_SECONDS,
                "longest": allowed.longest_wait_seconds,
                "first_wait": first_wait_seconds,
            },
        ).one_or_none()
        if counted is None:
            longest = max(longest, float(connection.execute(_WAIT, values).scalar_one()))
    return longest


def forgive(connection: Connection, site: str, *, subject: str, address: str) -> None:
    """Say that the attempt was right: the subject starts afresh, the address has one less."""
    connection.execute(_FORGIVE, {"site": site, "who": _digest(subject)})
    connection.execute(_UNCOUNT, {"site": site, "who": _digest(address)})


def _digest(who: str) -> str:
    return sha256(who.encode("utf-8", "replace")).hexdigest()[:32]
