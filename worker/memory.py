"""Memory of a process that reconnects for months: what is gone goes at once, to make room for what comes."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

_C = ctypes.CDLL(None)
"""Only glibc has the two functions used here; elsewhere they are missing, or refuse."""
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES = 100_000
"""Larger pieces lie apart from the others and go back to the system whole. A connection to RabbitMQ has a
buffer of 131,065 octets, seven too few for glibc's default: freed, it left a hole between smaller pieces."""

_FEW_COLLECTIONS = 50_000
"""New objects until garbage is looked for; Python's 700 are 30 messages, none of which leave any."""


def settle_down() -> None:
    """Prepare for a long life; call it with everything imported and before threads start.

    No collection looks through the modules again, so a full one takes milliseconds instead of a tenth of a
    second. Threads share one heap, which costs nothing where Python lets one of them run at a time: with a
    heap each (glibc's default), what one frees is no room for the others.
    """
    with suppress(AttributeError):
        _C.mallopt(_M_ARENA_MAX, 1)
        _C.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_FEW_COLLECTIONS)


def let_go() -> None:
    """Free connections that are gone; before the next is opened, or every few seconds where they come and go.

    Each is a cycle of a few hundred objects and as many kilobytes. Python looks for old cycles only once they
    are a quarter of all objects, by which time a hundred connections may wait. Their pages go back to the
    system, or what was freed between objects that live on would add up.
    """
    gc.collect()
    with suppress(AttributeError):
        _C.malloc_trim(0)
