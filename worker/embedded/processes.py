"""The engines' processes: until they are ready, and until they have ended.

A process is psutil's, which knows one by its id and its start: a recycled id gets no signal.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from worker.errors import SettingsError

START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.01


def psutil() -> Any:
    """It comes with the wheels, so only who runs the engines has it."""
    return importlib.import_module("psutil")


def wait_until(ready: Callable[[], bool], server: Any, log: Path) -> None:
    """Raises SettingsError with the log's end if the server dies or takes over 30 s."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if server.poll() is not None:
            raise SettingsError(f"{log.stem} did not start: {last_lines(log)}")
        if time.monotonic() > deadline:
            raise SettingsError(f"{log.stem} is not ready after {START_SECONDS:.0f} s: {last_lines(log)}")
        time.sleep(_POLL_SECONDS)


def last_lines(log: Path) -> str:
    """The end of an engine's log, for whoever must know why."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])


def stop(engines: Sequence[Any], followers: Sequence[Any] = (), *, keep_data: bool = True) -> None:
    """Stop them, by force after 10 s; `followers` end by themselves when their head has.

    Data that nobody keeps is not written out first: on a busy disk that takes seconds, and deleting it more.
    """
    gone = psutil().NoSuchProcess
    postgres, other = (signal.SIGINT, signal.SIGTERM) if keep_data else (signal.SIGQUIT, signal.SIGKILL)
    for engine in engines:  # all signals first: a second Ctrl-C during the wait leaves nothing running
        with contextlib.suppress(gone):
            engine.send_signal(postgres if engine.name() == "postgres" else other)
    deadline = time.monotonic() + _STOP_SECONDS
    while alive := [each for each in (*engines, *followers) if _runs(each)]:
        if time.monotonic() > deadline:
            for each in alive:
                with contextlib.suppress(gone):
                    each.kill()
        time.sleep(_POLL_SECONDS)


def _runs(process: Any) -> bool:
    """Whether it does; a zombie does not, though a container without an init keeps it for ever."""
    try:
        return bool(process.is_running()) and process.status() != psutil().STATUS_ZOMBIE
    except psutil().NoSuchProcess:
        return False
