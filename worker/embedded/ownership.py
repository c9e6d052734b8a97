"""One owner a folder: its lock, its end by a signal, and the orphans of one that was killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from worker.embedded.account import Account
from worker.embedded.processes import psutil
from worker.errors import SettingsError
from worker.leaving import leave

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def sole_owner(folder: Path, account: Account) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it when this process dies, however it dies."""
    with account.open(folder / "owner.pid", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip() or "(starting)"
            raise SettingsError(
                f"{folder} is in use by process {pid}: stop it, or choose another folder"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP, where they would kill at once, raise SystemExit instead."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for each in ours:
        signal.signal(each, _leave)
    try:
        yield
    finally:
        for each in ours:
            if signal.getsignal(each) is _leave:
                signal.signal(each, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # what signal.signal calls
    leave(128 + number)


def left_behind(folder: Path) -> tuple[list[Any], list[Any]]:
    """Engines an earlier owner left running here, and children of a PostgreSQL that itself was killed.

    Known by name and working directory, so a recycled process id is never taken for an engine.
    """
    heads: list[Any] = []
    children: list[Any] = []
    for process in psutil().process_iter():
        with contextlib.suppress(psutil().Error, OSError):
            if process.name() not in {"postgres", "initdb", "valkey-server"}:
                continue
            if Path(process.cwd()).is_relative_to(folder):
                child = process.cmdline()[:1] and process.cmdline()[0].startswith("postgres: ")
                (children if child else heads).append(process)
    return heads, children
