"""Moments in addresses, by which a list is paged: exact, and refused where they are none."""

from __future__ import annotations

from datetime import UTC, datetime


def written_moment(at: datetime) -> str:
    """Return a moment as an address holds it."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def read_moment(text: str) -> datetime | None:
    """Return the moment in an address; None where there is none, or something else."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
