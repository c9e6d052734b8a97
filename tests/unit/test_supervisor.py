"""The supervisor over processes that die, hang and will not end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import alive, until
from worker.processes.supervisor import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, SETTLED_SECONDS, Child

SUPERVISE = """
import json, sys
from worker import logs
from worker.processes.supervisor import Supervisor
logs.configure(json=True, uncaught=False)
sys.exit(Supervisor(json.loads(sys.argv[1]), grace_seconds=float(sys.argv[2])).run())
"""
SLEEPER = "import time; time.sleep(600)"
# says that it will not listen, then does not
STUBBORN = """
import pathlib, signal, sys, time
for number in {deaf_to}:
    signal.signal(number, signal.SIG_IGN)
pathlib.Path({ready!r}).touch()
time.sleep(600)
"""


class Supervised:
    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    def started(self) -> list[dict[str, Any]]:
        return self.said("process_started")


@contextmanager
def supervised(folder: Path, *, grace_seconds: float = 20.0, **scripts: str) -> Iterator[Supervised]:
    """Scripts by role, under a supervisor of their own process."""
    commands = {role: [sys.executable, "-c", script] for role, script in scripts.items()}
    log = folder / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, json.dumps(commands), str(grace_seconds)], stderr=written
        )
    running = Supervised(process, log)
    try:
        yield running
    finally:
        if process.poll() is None:
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGTERM):
                process.send_signal(number)
                time.sleep(0.1)  # equal signals that are not taken yet are one
        process.wait(timeout=30)


def test_what_ends_by_itself_is_started_again_whatever_its_exit_code(tmp_path: Path) -> None:
    with supervised(tmp_path, well="pass", badly="raise SystemExit(1)") as running:
        until(lambda: len(running.started()) >= 6)
        died = running.said("process_died")
        assert {(line["role"], line["exit_code"]) for line in died} == {("well", 0), ("badly", 1)}


def test_exit_code_78_ends_all_with_78(tmp_path: Path) -> None:
    with supervised(tmp_path, sleeper=SLEEPER, wrong="raise SystemExit(78)") as running:
        assert running.process.wait(timeout=20) == 78
        assert not any(alive(line["pid"]) for line in running.started())
        assert [line["role"] for line in running.said("process_cannot_run")] == ["wrong"]


def test_a_second_signal_is_harder(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    deaf = STUBBORN.format(deaf_to=[int(signal.SIGTERM)], ready=str(ready))
    with supervised(tmp_path, stubborn=deaf) as running:
        until(ready.exists)
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.said("ending"))
        assert not running.said("process_ended")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=10) == 0
        assert [line["signal"] for line in running.said("ending")] == ["SIGTERM", "SIGQUIT"]
        assert [line["exit_code"] for line in running.said("process_ended")] == [-signal.SIGQUIT]
        assert [line["asked"] for line in running.said("ending")] == ["first signal", "second signal"]
        (ended,) = running.said("supervisor_ended")
        assert (ended["level"], ended["exit_code"], ended["cut_off"]) == ("warning", 0, "stubborn")
        assert ended["hint"] == "what is in flight is not waited for, and comes again"


def test_patience_ends_with_a_kill(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    deaf = STUBBORN.format(deaf_to=[int(signal.SIGTERM), int(signal.SIGQUIT)], ready=str(ready))
    with supervised(tmp_path, grace_seconds=0.3, stubborn=deaf) as running:
        until(ready.exists)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(timeout=10) == 0
        assert [line["signal"] for line in running.said("ending")] == ["SIGTERM", "SIGQUIT", "SIGKILL"]
        assert running.said("ending")[1]["asked"] == "patience is over"


def test_nothing_is_started_while_ending(tmp_path: Path) -> None:
    with supervised(tmp_path, quick="pass") as running:
        until(lambda: running.said("process_died"))
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=10) == 0
        ended, last_start = running.said("supervisor_ended"), running.started()[-1]
        assert not alive(last_start["pid"])
        assert len(ended) == 1


@pytest.mark.parametrize(
    ("lifetimes", "pauses"),
    [
        ([1, 1, 1, 1], [0.5, 1.0, 2.0, 4.0]),
        ([1, SETTLED_SECONDS, 1, 1], [0.5, 0.5, 0.5, 1.0]),
        ([1] * 12, [*(FIRST_PAUSE_SECONDS * 2**n for n in range(4)), *[LONGEST_PAUSE_SECONDS] * 8]),
    ],
)
def test_the_pause_doubles_with_each_quick_death(lifetimes: list[float], pauses: list[float]) -> None:
    child, now, found = Child("sms", ["true"]), 1000.0, []
    for lifetime in lifetimes:
        child.started_at = now
        now += lifetime
        found.append(child.died(now))
        assert child.start_at == now + found[-1]
    assert found == pauses
