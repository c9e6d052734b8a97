"""Signals that ask a worker process to end, heard by a thread of its own.

Python runs a handler in the main thread, between any two of its steps. Celery's handler of a second signal
writes to the broker, and waits for ever where it has interrupted a write to the same connection; one that
starts a thread may wait likewise. The interpreter puts each signal's number into a pipe before any handler
runs: from there a thread reads it, whatever the main thread waits for.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

_TO_END = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
_AT_ONCE = {signal.SIGQUIT}
if os.environ.get("REMAP_SIGTERM") == "SIGQUIT":  # Celery's own setting
    _AT_ONCE.add(signal.SIGTERM)


def hear(asked: Callable[[bool], None]) -> None:
    """Call ``asked`` at each such signal: with True at the second, and at one that waits for nothing.

    To be called in the main thread, once.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(reader, asked), name="signals", daemon=True).start()


def _listen(reader: int, asked: Callable[[bool], None]) -> None:
    before = False
    while True:
        for number in os.read(reader, 64):
            if number in _TO_END:
                asked(before or number in _AT_ONCE)
                before = True
