"""A dead letter's arguments in few words, for who looks through many; who shows them masks the numbers."""

from __future__ import annotations

import json
from typing import Any


def brief(payload: Any) -> str:
    """What came: names and values, items counted; of a body that could not be decoded its size alone.

    Base64 would get past a mask.
    """
    if not isinstance(payload, dict) or not payload:
        return json.dumps(payload, ensure_ascii=False)
    if isinstance(body := payload.get("base64"), str) and payload.keys() <= {"base64", "content_type"}:
        return _undecoded(body, payload.get("content_type"))
    return ", ".join(f"{name} {_value(value)}" for name, value in payload.items())


def _value(value: Any) -> str:
    return f"<{_counted(len(value), 'item')}>" if isinstance(value, list) else str(value)


def _undecoded(body: str, content_type: Any) -> str:
    size = len(body.rstrip("=")) * 3 // 4
    shown = f"<{_counted(size, 'byte')} that could not be decoded>"
    return f"{shown}, {content_type}" if content_type else shown


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun if number == 1 else noun + 's'}"
