"""``presend worker`` as an operator meets it: killed, restarted, ended, and left no orphans."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.commands import APIKEY, alive, command, environment, presend, until
from tests.services import connect_amqp

ROLES = {"recharge", "sms", "upkeep"}


@dataclass
class Worker:
    """A running ``presend worker`` and what it logged."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        written = self.log.read_text().splitlines()
        return [json.loads(line) for line in written if line.startswith("{") and line.endswith("}")]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["event"] == event]

    def pids(self) -> dict[str, int]:
        """The newest process of each role."""
        return {line["role"]: line["pid"] for line in self.said("process_started")}

    def ready(self) -> dict[str, int] | None:
        """The pids, once both lanes consume and upkeep has begun."""
        pids = self.pids()
        events = [str(line["event"]) for line in self.lines()]
        nodes = [f"{role}-{pid}@" for role, pid in pids.items() if role != "upkeep"]
        consuming = all(any(each.startswith(node) and "ready" in each for each in events) for node in nodes)
        return pids if pids.keys() == ROLES and consuming and "upkeep_started" in events else None


@pytest.fixture
def settings(database_url: str, redis_url: str) -> dict[str, str]:
    return environment(
        database_url=database_url,
        broker_url=redis_url,
        redis_url=redis_url,
        provider_url="http://127.0.0.1:9",
        provider_apikey=APIKEY,
    )


@pytest.fixture
def worker(settings: dict[str, str], tmp_path: Path) -> Iterator[Worker]:
    log = tmp_path / "worker.log"
    with log.open("wb") as written:
        process = subprocess.Popen(command("worker"), env=settings, stderr=written, stdin=subprocess.DEVNULL)
    started = Worker(process, log)
    try:
        until(started.ready, what="presend worker")
        yield started
    finally:
        process.kill()
        process.wait()
        left = [pid for pid in started.pids().values() if not _ended(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left


def _ended(pid: int) -> bool:
    try:
        return until(lambda: not alive(pid), seconds=40)
    except AssertionError:
        return False


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_killed_process_is_started_again_and_the_others_stay(worker: Worker, role: str) -> None:
    before = worker.pids()
    os.kill(before[role], signal.SIGKILL)
    after = until(lambda: worker.pids() if worker.pids() != before else None, what="a new process")
    assert {each for each in ROLES if before[each] != after[each]} == {role}
    assert alive(after[role])
    (died,) = worker.said("process_died")
    assert (died["role"], died["pid"], died["signal"]) == (role, before[role], "SIGKILL")


def test_a_restarted_lane_consumes_again(worker: Worker) -> None:
    os.kill(worker.pids()["sms"], signal.SIGKILL)
    until(lambda: len(worker.said("process_started")) == len(ROLES) + 1 and worker.ready())


def test_killing_the_supervisor_leaves_no_process(worker: Worker) -> None:
    pids = worker.pids()
    worker.process.kill()
    worker.process.wait()
    for role, pid in pids.items():
        until(lambda pid=pid: not alive(pid), what=f"the end of {role}")  # type: ignore[misc]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_all_warmly(worker: Worker, number: signal.Signals) -> None:
    pids = worker.pids()
    worker.process.send_signal(number)
    assert worker.process.wait(timeout=25) == 0
    assert not any(map(alive, pids.values()))
    ended = {line["role"]: line["exit_code"] for line in worker.said("process_ended")}
    assert ended == dict.fromkeys(ROLES, 0)


def test_processes_lead_sessions_of_their_own_so_one_ctrl_c_is_one_signal(worker: Worker) -> None:
    for pid in worker.pids().values():
        assert os.getsid(pid) == pid


def test_one_lane_runs_in_this_very_process(settings: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "lane.log"
    with log.open("wb") as written:
        process = subprocess.Popen(command("worker", "--lane", "sms"), env=settings, stderr=written)
    try:
        node = f"sms-{process.pid}@"
        until(lambda: any(line["event"].startswith(node) for line in Worker(process, log).lines()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=25) == 0
    finally:
        process.kill()
        process.wait()


def test_a_wrong_queue_ends_all_with_78_and_the_reason(
    amqp_url: str, settings: dict[str, str], tmp_path: Path
) -> None:
    with connect_amqp(amqp_url) as connection:
        connection.channel().queue_declare("recharge", durable=True, auto_delete=False)
    done = presend("worker", env=settings | {"PRESEND_BROKER_URL": amqp_url})
    assert done.returncode == 78
    assert "queue_has_other_arguments" in done.stderr
    assert '"process_cannot_run"' in done.stderr
    assert "process_died" not in done.stderr


@pytest.mark.parametrize("lane", ["recharge", "upkeep"])
def test_one_lane_says_78_for_a_wrong_setting(settings: dict[str, str], lane: str) -> None:
    done = presend("worker", "--lane", lane, env=settings | {"PRESEND_PROVIDER_APIKEY": "short"})
    assert done.returncode == 78
    assert done.stderr.startswith("Error: PRESEND_PROVIDER_APIKEY must be 32 printable ASCII characters")


def test_a_missing_key_is_told_before_anything_starts(settings: dict[str, str]) -> None:
    done = presend("worker", env=settings | {"PRESEND_PROVIDER_APIKEY": ""})
    assert done.returncode == 78
    assert "PRESEND_PROVIDER_APIKEY is not set" in done.stderr
    assert "process_started" not in done.stderr


@pytest.mark.parametrize("lane", [(), ("--lane", "sms")])
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("FAILURE_CODES", "/nonexistent", "name a readable CSV file there, or unset it"),
        ("PROVIDER_URL", "http://127.0.0.1:port", "must be http(s)://host[:port]"),
        ("REDIS_URL", "redis://:secret@127.0.0.1:port/0", "must be redis://host:port/database"),
        ("DATABASE_URL", "postgresql://u:secret@127.0.0.1:port/x", "must be postgresql://user:password@host"),
        ("BROKER_URL", "amqp://u:secret@127.0.0.1:port//", "must be amqp://user:password@host"),
    ],
)
def test_a_setting_that_no_part_can_be_built_from_is_told_before_anything_starts(
    settings: dict[str, str], name: str, value: str, says: str, lane: tuple[str, ...]
) -> None:
    done = presend("worker", *lane, env=settings | {f"PRESEND_{name}": value})
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: PRESEND_{name}")
    assert says in line
    assert "secret" not in line


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_process_that_cannot_be_built_says_so_in_one_line(settings: dict[str, str], role: str) -> None:
    """As where the file went away after the start."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "worker.processes.role", role, str(os.getpid())],
        env=settings | {"PRESEND_FAILURE_CODES": "/nonexistent"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"presend {role}: PRESEND_FAILURE_CODES: /nonexistent cannot be read")


def test_missing_tables_are_told_before_anything_starts(
    settings: dict[str, str], empty_database_url: str
) -> None:
    done = presend("worker", env=settings | {"PRESEND_DATABASE_URL": empty_database_url})
    assert done.returncode == 1
    assert done.stderr == "Error: the database lacks tables of this release: run presend db upgrade\n"


def test_an_unreachable_broker_is_told_before_anything_starts(settings: dict[str, str]) -> None:
    done = presend("worker", env=settings | {"PRESEND_BROKER_URL": "redis://127.0.0.1:9/0"})
    assert done.returncode == 1
    assert "the broker does not answer" in done.stderr
    assert "process_started" not in done.stderr
