"""The gate is closed for longer than RabbitMQ lets a consumer hold a message: no channel is closed for it.

RabbitMQ's half hour is cut to 30 s on a node of the test's own, and the gate stays closed for more than three
such times. Takes four minutes and a RabbitMQ on this machine: run by `make faults`, or with
PRESEND_TEST_CONSUMER_TIMEOUT=1.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import Place, place
from tests.acceptance.processes import Process
from tests.acceptance.provider import WatchedSandbox, plain_numbers
from tests.acceptance.waiting import eventually
from tests.commands import command
from tests.services.rabbitmq import amqp_answers

_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_TIMEOUT_SECONDS = 30
_CLOSED_SECONDS = 3.5 * _TIMEOUT_SECONDS

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        not (os.environ.get("PRESEND_TEST_CONSUMER_TIMEOUT") and _PROGRAM.exists()),
        reason="takes minutes and a RabbitMQ on this machine: PRESEND_TEST_CONSUMER_TIMEOUT=1 runs it",
    ),
]

_WITHOUT_GIVING_BACK = """
import sys
from worker.lane_switch import LaneSwitch
LaneSwitch.connected = LaneSwitch._turn = lambda switch: None
from celery.__main__ import main
sys.argv[0] = "celery"
main()
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def impatient_url() -> Iterator[str]:
    """A RabbitMQ node that lets a consumer hold a message for half a minute."""
    folder = Path("/tmp") / f"presend-rabbitmq-{os.getpid()}"
    folder.mkdir()
    port = _free_port()
    (folder / "advanced.config").write_text(
        f'[{{rabbit, [{{tcp_listeners, [{{"127.0.0.1", {port}}}]}},'
        f" {{consumer_timeout, {_TIMEOUT_SECONDS * 1000}}}, {{channel_tick_interval, 2000}}]}}]."
    )
    environment = os.environ | {
        "HOME": str(folder),  # the node's cookie
        "RABBITMQ_NODENAME": f"presend{port}@localhost",
        "RABBITMQ_DIST_PORT": str(_free_port()),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none.conf"),
        "RABBITMQ_MNESIA_BASE": str(folder),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
    }
    with (folder / "out.log").open("wb") as log:
        node = subprocess.Popen([_PROGRAM], env=environment, stdout=log, stderr=log, cwd=folder)
    url = f"amqp://guest:guest@127.0.0.1:{port}//"
    try:
        eventually(lambda: amqp_answers(url), "the node to answer", seconds=60, each_seconds=0.5)
        yield url
    finally:
        node.terminate()
        node.wait(timeout=60)
        shutil.rmtree(folder)


@pytest.fixture
def here(impatient_url: str, redis_url: str, database_url: str, tmp_path: Path) -> Iterator[Place]:
    with place(
        broker_url=impatient_url,
        redis_url=redis_url,
        database_url=database_url,
        folder=tmp_path,
        sandbox=WatchedSandbox(),
    ) as made:
        made.settings["sms_linger_seconds"] = "12"  # so that messages wait in the worker's hands
        yield made


def gate(here: Place, *arguments: str) -> None:
    assert here.run(f"gate-{arguments[0]}", command("gate", *arguments)).ended() == 0


def close_with_messages_held(here: Place, numbers: list[str]) -> None:
    here.send_many("sms", numbers)
    eventually(lambda: not here.messages_left(), "all messages in the worker's hands")
    gate(here, "close", "--reason", "the test says so", "--by", "test")


def channel_was_closed(worker: Process) -> bool:
    return "PRECONDITION_FAILED" in worker.log


def test_no_channel_is_closed_and_nothing_is_lost(here: Place) -> None:
    numbers = plain_numbers(300)
    worker = here.worker("sms")
    here.worker("recharge")
    close_with_messages_held(here, numbers[:200])
    closed_at = time.monotonic()
    eventually(lambda: here.messages_left() == {"sms": 200}, "all of them in their queue again", seconds=10)
    here.send_many("sms", numbers[200:299])
    told = here.send("recharge.precheck", order_id="told", mobile=numbers[-1], operator="CMCC").get(10)
    assert told["reason"] == "gate_closed"
    eventually(
        lambda: time.monotonic() - closed_at > _CLOSED_SECONDS or channel_was_closed(worker),
        "more than three consumer time-outs",
        seconds=2 * _CLOSED_SECONDS,
        each_seconds=1,
    )
    assert not channel_was_closed(worker)
    assert here.messages_left() == {"sms": 299}
    assert not here.sandbox.asked

    gate(here, "open", "--by", "test")
    here.check_settled(300, seconds=60)
    here.stop()
    assert here.sandbox.bills() == dict.fromkeys(numbers[:299], 1)


def test_control_arm_held_messages_do_close_it(here: Place) -> None:
    """Without the switch the messages stay in the worker's hands, and RabbitMQ closes its channel."""
    worker = here.run(
        "sms-without",
        [sys.executable, "-c", _WITHOUT_GIVING_BACK, "-A", "worker.app", "worker", "-Q", "sms", "-l", "INFO"],
    )
    worker.wait_for(" ready.")
    close_with_messages_held(here, plain_numbers(200))
    eventually(
        lambda: channel_was_closed(worker), "a closed channel", seconds=_CLOSED_SECONDS, each_seconds=1
    )
