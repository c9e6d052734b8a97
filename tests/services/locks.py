"""Locks between test processes, let go of by the kernel when one dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def lock_path(name: str) -> Path:
    """The file of a lock; all users of the machine share it."""
    return Path(tempfile.gettempdir()) / f"presend-tests-{name}.lock"


def _lock_file(name: str) -> int:
    """Open a lock file anybody may use: read-only is enough for a lock, and works on another user's file."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(lock_path(name), os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o644))
    return os.open(lock_path(name), os.O_RDONLY | os.O_NOFOLLOW)


@contextlib.contextmanager
def try_lock(name: str) -> Iterator[bool]:
    """Whether the lock is ours for this block."""
    file = _lock_file(name)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(file)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Wait for the lock, hold it for this block."""
    file = _lock_file(name)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
