"""Leaving from a signal's handler, wherever that has interrupted the main thread.

Python drops an exception raised within a ``__del__`` or a weak reference's callback, after telling
``sys.unraisablehook``. A handler's SystemExit that falls into one would be lost, and the program go on.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_AGAIN_SECONDS = 0.02


def leave(status: int) -> NoReturn:
    """Raise SystemExit in the main thread, and where it is dropped, again a moment later."""
    others = sys.unraisablehook

    def dropped(what: UnraisableHookArgs, /) -> None:
        if isinstance(what.exc_value, SystemExit):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        else:
            others(what)

    def again(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(status)

    signal.signal(signal.SIGALRM, again)
    sys.unraisablehook = dropped
    raise SystemExit(status)
