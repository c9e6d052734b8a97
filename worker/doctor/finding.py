"""What the doctor found: one line a subject."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, and one day may not; or it could not be looked at."""
    FAIL = "fail"
    """presend does not work, or does not keep a promise."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One subject."""

    # what was looked at, e.g. "RabbitMQ, queue sms"
    subject: str
    state: State
    # what was seen, without secrets
    seen: str
    # what to do; empty where all is well
    todo: str = ""


def ok(subject: str, seen: str) -> Finding:
    """All is well."""
    return Finding(subject, State.OK, seen)


def warn(subject: str, seen: str, todo: str) -> Finding:
    """It works for now."""
    return Finding(subject, State.WARN, seen, todo)


def fail(subject: str, seen: str, todo: str) -> Finding:
    """It does not work."""
    return Finding(subject, State.FAIL, seen, todo)


FAR_SECONDS = 2.0
"""Clocks further apart than this are told; the provider's Date header has whole seconds only."""


def clock(subject: str, ahead_seconds: float) -> Finding:
    """How far a server's clock is ahead of this machine's."""
    apart = abs(ahead_seconds)
    if apart <= FAR_SECONDS:
        return ok(subject, f"within {FAR_SECONDS:g} s of this machine's")
    words = f"{apart:.1f} s {'ahead of' if ahead_seconds > 0 else 'behind'} this machine's"
    return warn(subject, words, "run NTP (chrony) on both: records, expiries and audits compare their times")
