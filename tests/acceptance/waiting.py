"""Conditions with deadlines, instead of sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.02


def eventually(
    look: Callable[[], T], what: str, *, seconds: float = 20.0, each_seconds: float = _POLL_SECONDS
) -> T:
    """What ``look`` returns once it is true; fails after ``seconds`` with what it returned last."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what} (last seen: {found!r})"
        time.sleep(each_seconds)
    return found
