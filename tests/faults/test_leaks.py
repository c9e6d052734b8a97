"""The search for numbers and keys in logs finds what is planted there."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.faults.leaks import leaks

_NUMBER, _KEY = "13912349876", "k" * 32


@pytest.mark.parametrize(
    "planted",
    [
        _NUMBER,
        f"+86{_NUMBER}",
        "+86 139 1234 9876",
        "139-1234-9876",
        "1391234 9876",
        f"x{_NUMBER}9",
        base64.b64encode(f'{{"mobile": "{_NUMBER}"}}'.encode()).decode(),
        "abc" + base64.b64encode(f"the mobile +86 {_NUMBER[:3]} {_NUMBER[3:]}".encode()).decode(),
        _KEY,
        base64.b64encode(b"apikey=" + _KEY.encode()).decode(),
    ],
)
def test_what_is_planted_is_found(tmp_path: Path, planted: str) -> None:
    log = tmp_path / "worker.log"
    log.write_text(f'{{"event": "something", "body": "{planted}"}}\n')
    assert leaks([log], [f"+86{_NUMBER}"], _KEY)


def test_what_is_masked_is_not(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text(
        '{"event": "something", "mobile": "139****9876", "timestamp": "2026-11-24T12:39:16.89Z"}\n'
    )
    assert not leaks([log], [_NUMBER], _KEY)
