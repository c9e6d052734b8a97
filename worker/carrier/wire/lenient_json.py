"""JSON as providers write it: the document's own balance example ends in ``"12048",}``."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from typing import Any

import msgspec

from worker.portability.json_kinds import NOT_JSON

# a whole string, which is kept as it is, or a comma before a closing bracket, which goes
_STRING_OR_LAST_COMMA = re.compile(rb'("(?:[^"\\]|\\.)*+")|,(?=\s*[}\]])', re.DOTALL)


def loads(raw: bytes) -> Any:
    """Decode UTF-8 JSON with or without trailing commas and BOM; None where it is no JSON at all."""
    raw = raw.removeprefix(BOM_UTF8)
    try:
        return msgspec.json.decode(raw)
    except NOT_JSON:
        pass
    try:
        return msgspec.json.decode(_STRING_OR_LAST_COMMA.sub(rb"\1", raw))
    except NOT_JSON:
        return None
