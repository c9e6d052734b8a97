"""What a value of JSON is, in the words of a reason text."""

from __future__ import annotations

_KINDS = {
    str: "a string", int: "a number", float: "a number", bool: "true or false",
    type(None): "null", list: "a list", dict: "an object",
}  # fmt: skip


def kind(value: object) -> str:
    """Name the kind of a value, and nothing of what it holds."""
    return _KINDS.get(type(value), "something else")
