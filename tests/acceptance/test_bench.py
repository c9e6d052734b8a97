"""``presend bench`` in real processes: its figures, and that nothing is left of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil

from tests.acceptance.processes import Process


def test_rates_and_waits_are_measured_and_nothing_is_left(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "worker.cli",
        "bench",
        "--numbers",
        "4000",
        "--prechecks",
        "10",
        "--json",
    ]
    running = Process("bench", [*command, "--folder", str(tmp_path / "bench")], {}, tmp_path)
    assert running.ended(seconds=110) == 0, running.shown()
    found = json.loads(running.log.splitlines()[-1])
    assert found["singles_a_second"] > 0
    assert found["many_a_second"] > 0
    assert found["precheck_ms"]["50"] > found["provider_ms"]["50"] >= 100
    ours = str(tmp_path / "bench")
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if ours in " ".join(one.info["cmdline"] or ())
    ]
