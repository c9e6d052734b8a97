"""Compressed messages, unfolded to a cap: kombu would unfold one to whatever size it says, in the worker.

A body that is larger, or of a compression without a cap here, is left as it came, and parked as unreadable.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from kombu import compression

MOST_BYTES = 16 * 1024 * 1024
"""A message of 1000 items is a few hundred kB."""

_CAPPED: dict[str, Callable[[], Any]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
    "application/x-lzma": lzma.LZMADecompressor,
}


def install() -> None:
    """Cap every decompression this process's kombu knows."""
    known: Any = compression  # its types are stated wrong
    for content_type in known.encoders():
        unpacker = _CAPPED.get(content_type)
        encoder, _ = known.get_encoder(content_type)
        known.register(encoder, _refused if unpacker is None else _capped(unpacker), content_type)


def _capped(unpacker: Callable[[], Any]) -> Callable[[bytes], bytes]:
    def decompress(body: bytes) -> bytes:
        unpacking = unpacker()
        unfolded: bytes = unpacking.decompress(body, MOST_BYTES)
        if not unpacking.eof:
            raise ValueError("the body unfolds to more than a message can be, or ends too soon")
        return unfolded

    return decompress


def _refused(_body: bytes) -> bytes:
    raise ValueError("messages are compressed by gzip, bzip2 or lzma, or not at all")
