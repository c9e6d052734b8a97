"""Ids of batches, calls and dead letters: UUIDs that sort by time, so that indexes grow at one end."""

from __future__ import annotations

import os
import time
import uuid


def new_id() -> str:
    """Return a UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    bits = int.from_bytes(os.urandom(10), "big")
    high = (milliseconds << 16) | 0x7000 | (bits >> 68)
    low = (0b10 << 62) | (bits & ((1 << 62) - 1))
    return str(uuid.UUID(int=(high << 64) | low))
