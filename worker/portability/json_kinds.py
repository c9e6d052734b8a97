"""What a value of JSON is, in the words of a reason text, and what decoding raises where it is none."""

from __future__ import annotations

import msgspec

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What ``msgspec.json.decode`` raises for bytes that are no JSON, or nested too deeply to read."""

_KINDS = {
    str: "a string", int: "a number", float: "a number", bool: "true or false",
    type(None): "null", list: "a list", dict: "an object",
}  # fmt: skip


def kind(value: object) -> str:
    """Name the kind of a value, and nothing of what it holds."""
    return _KINDS.get(type(value), "something else")
