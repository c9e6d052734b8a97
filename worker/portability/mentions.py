"""Whether something holds a certain mobile number, however it is written there.

For erasure, so a doubtful case counts as a mention: eleven matching digits inside a longer run do too.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from worker.portability.msisdn import with_our_digits

_BETWEEN = "[^0-9A-Za-z]{0,4}"
"""What may stand between two digits: spaces, dashes, dots, brackets, quotes and commas."""
_DEEPEST = 3
"""Bodies within bodies: base64 in a queue's element in base64 in a dead letter."""
_MOST_UNPACKED = 16 * 1024 * 1024
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{7,}={0,2}")
_ESCAPED_DIGIT = re.compile(r"\\u00(3[0-9])")


class Mentions:
    """Finds one number in texts, JSON values and bodies."""

    def __init__(self, msisdn: str) -> None:
        self.msisdn = msisdn
        self.pattern = _BETWEEN.join(msisdn)
        """The number with what may stand between its digits; the same in Python's and Postgres' syntax."""
        self._search = re.compile(self.pattern).search
        # as pickle, msgpack and the like write a whole number
        self._binary = [int(msisdn).to_bytes(5, order) for order in ("little", "big")]

    def in_text(self, text: str, *, _depth: int = 0) -> bool:
        """Whether a text holds it: in any script's digits, percent-encoded, or inside base64."""
        plain = _plain(text)
        if self._search(plain) or ("%" in plain and self._search(unquote(plain))):
            return True
        return (
            any(self.in_body(body, _depth=_depth + 1) for body in _decoded(text))
            if _depth < _DEEPEST
            else False
        )

    def taken_out_of(self, text: str) -> str:
        """The text with the number's digits replaced by a word."""
        return re.sub(self.pattern, "(number)", text)

    def in_json(self, value: Any) -> bool:
        """Whether a JSON value holds it, in one string, number or name, or spread over neighbours."""
        leaves = list(_leaves(value))
        return self.in_text(" ".join(leaves)) or any(self.in_text(leaf) for leaf in leaves)

    def in_body(self, body: bytes, *, _depth: int = 0) -> bool:
        """Whether a message's body holds it, compressed or not, as text or as a binary number."""
        if any(number in body for number in self._binary):
            return True
        texts = [body.decode("utf-8", "replace")]
        if b"\x00" in body:
            texts += [body.decode(encoding, "replace") for encoding in ("utf-16-le", "utf-16-be")]
        if any(self.in_text(text, _depth=_depth) for text in texts):
            return True
        return _depth < _DEEPEST and any(self.in_body(one, _depth=_depth + 1) for one in _unpacked(body))


def _plain(text: str) -> str:
    """The text with digits of every script, and escaped ones, as ASCII digits."""
    if "\\u00" in text:
        text = _ESCAPED_DIGIT.sub(lambda match: chr(int(match[1], 16)), text)
    return with_our_digits(text)


def _leaves(value: Any) -> Iterator[str]:
    """Every string, number and name in a JSON value, as text."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += reversed([part for pair in one.items() for part in pair])
        elif isinstance(one, list):
            left += reversed(one)
        elif one is not None:
            yield str(one)


def _decoded(text: str) -> Iterator[bytes]:
    """What each run of base64 in a text stands for."""
    for match in _ENCODED.finditer(text):
        run = match[0].rstrip("=").translate(str.maketrans("-_", "+/"))
        try:
            yield base64.b64decode(run + "=" * (-len(run) % 4))
        except binascii.Error:
            continue


def _unpacked(body: bytes) -> Iterator[bytes]:
    """The body unpacked by each of the compressions a producer may use; stops at a bomb's first 16 MiB."""
    unpackers: list[Callable[[], Any]] = [
        lambda: zlib.decompressobj(47), bz2.BZ2Decompressor, lzma.LZMADecompressor
    ]  # fmt: skip
    for unpacker in unpackers:
        try:
            yield unpacker().decompress(body, _MOST_UNPACKED)
        except (zlib.error, OSError, lzma.LZMAError, ValueError, EOFError):
            continue
