"""A number is found however it is written, and nobody else's is taken for it."""

from __future__ import annotations

import base64
import bz2
import json
import lzma
import pickle
import zlib

import pytest

from worker.portability.mentions import Mentions

NUMBER = "13967452318"
HERS = Mentions(NUMBER)
BODY = json.dumps({"mobile": NUMBER}).encode()


@pytest.mark.parametrize(
    "text",
    [
        NUMBER,
        f"+86{NUMBER}",
        f"0086-{NUMBER}",
        "139 6745 2318",
        "(139)6745-2318",
        "139%206745%202318",
        "13 96 74 52 31 8",
        "１３９６７４５２３１８",
        "١٣٩٦٧٤٥٢٣١٨",
        "\\u0031\\u0033\\u0039\\u0036\\u0037\\u0034\\u0035\\u0032\\u0033\\u0031\\u0038",
        f"order{NUMBER}x",
        base64.b64encode(BODY).decode(),
        base64.urlsafe_b64encode(BODY).decode().rstrip("="),
    ],
)
def test_found_in_text(text: str) -> None:
    assert HERS.in_text(text)
    assert HERS.in_json({"items": [1, {"mobile": text}]})
    assert HERS.in_json({text: None})
    assert HERS.in_body(text.encode())


@pytest.mark.parametrize("value", [int(NUMBER), float(NUMBER), list(NUMBER), ["139", "6745", 2318]])
def test_found_in_json(value: object) -> None:
    assert HERS.in_json({"mobile": value})


@pytest.mark.parametrize(
    "body",
    [
        *(pack(BODY) for pack in (zlib.compress, bz2.compress, lzma.compress, base64.b64encode)),
        BODY.decode().encode("utf-16"),
        pickle.dumps({"mobile": int(NUMBER)}),
        int(NUMBER).to_bytes(8, "big"),
        json.dumps({"body": base64.b64encode(zlib.compress(BODY)).decode()}).encode(),
    ],
)
def test_found_in_a_body(body: bytes) -> None:
    assert HERS.in_body(body)
    assert HERS.in_json({"base64": base64.b64encode(body).decode()})


@pytest.mark.parametrize(
    "text", ["", "13967452319", "139674 order 52318", "1396745", base64.b64encode(b"x" * 99).decode()]
)
def test_not_found(text: str) -> None:
    assert not HERS.in_text(text)
    assert not HERS.in_json({"a": [text, None, True, 13967452319]})
    assert not HERS.in_body(text.encode())
