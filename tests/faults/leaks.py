"""Whether a log holds a mobile number or a key: as it is, behind +86, in groups, or inside base64."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_NUMBER = re.compile(rb"(?=(1[3-9][0-9]{9}))")
_SEPARATORS = bytes.maketrans(b"", b"")
_MAYBE_BASE64 = re.compile(rb"[A-Za-z0-9+/]{16,}={0,2}")


def leaks(logs: Sequence[Path], numbers: Iterable[str], apikey: str) -> list[str]:
    """Where a log holds one of these numbers, or the provider's key."""
    ours = {number[-11:].encode() for number in numbers}
    return [f"{log.name}: {what}" for log in logs for what in _found(log.read_bytes(), ours, apikey.encode())]


def _found(text: bytes, ours: set[bytes], apikey: bytes) -> Iterator[str]:
    for spelled in _spellings(text):
        found = ours & {match[1] for match in _NUMBER.finditer(spelled)}
        yield from ["a number"] * len(found)
        yield from ["the provider's key"] * (apikey in spelled)


def _spellings(text: bytes) -> Iterator[bytes]:
    """The text as it is, without spaces and dashes, and whatever in it is base64."""
    yield text
    yield text.translate(_SEPARATORS, b" -")
    for run in _MAYBE_BASE64.findall(text):
        for start in range(4):  # what was encoded may have begun anywhere in it
            piece = run[start:].rstrip(b"=")
            with_padding = piece[: len(piece) // 4 * 4]
            try:
                decoded = base64.b64decode(with_padding)
            except binascii.Error:
                continue
            yield decoded
            yield decoded.translate(_SEPARATORS, b" -")
