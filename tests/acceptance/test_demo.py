"""``presend demo`` in real processes: what it shows, and that nothing is left of it however it ends."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.acceptance.processes import Process
from tests.acceptance.waiting import eventually

ENGINES = {"postgres", "initdb", "valkey-server"}
MARK = "PRESENDTEST_DEMO"
"""In the environment of the demo, and of the processes it hands its environment on to."""
ENDS_WITHIN_SECONDS = 10


class Demo:
    """A folder, and the demos that run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.mark = uuid4().hex
        self.started: list[Process] = []

    def start(self) -> Process:
        """Start ``presend demo --quick``."""
        command = [sys.executable, "-m", "worker.cli", "demo", "--quick", "--folder", str(self.folder)]
        environment = {MARK: self.mark, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
        process = Process(f"demo-{len(self.started)}", command, environment, self.folder.parent)
        self.started.append(process)
        return process

    def left(self) -> list[psutil.Process]:
        """Every process of it that runs."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def engines(self) -> list[psutil.Process]:
        """PostgreSQL's and Valkey's."""
        return [process for process in self.left() if _name(process) in ENGINES]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            if process.name() in ENGINES:
                return Path(process.cwd()).is_relative_to(self.folder)
            return process.environ().get(MARK) == self.mark
        except (psutil.Error, OSError):
            return False


def _name(process: psutil.Process) -> str:
    """Name of ``process``, empty where it ended since it was listed."""
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path / "demo")
    yield made
    for process in made.left():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for started in made.started:
        started.kill()


def test_a_day_is_shown_its_figures_agree_and_nothing_is_left(demo: Demo) -> None:
    running = demo.start()
    running.wait_for("workers: recharge, sms, upkeep")
    second = demo.start()
    assert second.ended() == 1
    assert f"a demo is running already (process {running.pid})" in second.log
    assert running.ended() == 0, running.shown()
    said = running.log
    for answer in (
        r"13972565391 +移动 -> 电信 +ported +湖北-宜昌",
        r"13798361236 +移动 -> 移动 +not ported +广东-深圳",
        r"13352918995 +电信 -> 电信 +not ported +广东-深圳",
        r"13163320753 +联通 -> 联通 +not ported +湖北-武汉",
        r"number\.ported +1\b",
        r"sms\.reroute to ",
        r"recharge\.precheck blunder-1 *\n +operator must be one of CMCC",
    ):
        assert re.search(answer, said), answer
    assert said.count(" agrees") == 7, said
    assert "DISAGREES" not in said
    billed = re.search(r"billed by the provider +([\d,]+) +billed, says the ledger +([\d,]+)", said)
    assert billed is not None
    assert billed[1] == billed[2]
    assert int(billed[1].replace(",", "")) > 200
    assert max(map(len, said.splitlines())) <= 80
    assert demo.left() == []
    assert not (demo.folder / "engines" / "postgres").exists()


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("A day of recharges", signal.SIGTERM),  # no engine runs yet
        ("tables", signal.SIGINT),  # workers are about to start
        (" decided, ", signal.SIGINT),  # traffic flows
    ],
)
def test_a_signal_ends_it_at_any_moment(demo: Demo, moment: str, number: signal.Signals) -> None:
    running = demo.start()
    running.wait_for(moment)
    running.signal(number)
    assert running.ended(seconds=ENDS_WITHIN_SECONDS) == 128 + number, running.shown()
    assert demo.left() == []


def test_after_kill_nine_the_workers_end_and_the_next_start_stops_the_engines(demo: Demo) -> None:
    killed = demo.start()
    killed.wait_for(" decided, ")
    killed.kill()
    orphans = {process.pid for process in demo.engines()}
    assert orphans, "the engines are known to survive: without that this test shows nothing"
    eventually(lambda: all(_name(one) in ENGINES for one in demo.left()), "workers and sandbox have ended")
    again = demo.start()
    again.wait_for("workers: recharge, sms, upkeep")
    assert not orphans & {process.pid for process in demo.engines()}
    assert again.stop(seconds=ENDS_WITHIN_SECONDS) == 128 + signal.SIGTERM
    assert demo.left() == []
