"""``presend events``: followed over both brokers, and the last ones on Redis."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.commands import command, environment, presend, until
from worker.portability import events
from worker.portability.events import Event
from worker.portability.records import AnsweredFrom, CheckedRequest, PortChange, Status
from worker.portability.requests import Lane, RequestKey
from worker.publisher import publisher_for

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


def reroute(reference: str, lane: Lane = Lane.SMS) -> Event:
    key = RequestKey("", lane, reference, 1)
    return events.of_check(
        CheckedRequest(
            source="",
            lane=lane,
            reference=reference,
            attempt=1,
            msisdn="13972565391",
            asked_operator="CMCC",
            failure_code=None,
            status=Status.PORTED,
            range_holder="CMCC",
            current_operator="CTCC",
            target_operator="CTCC",
            area=None,
            observed_at=NOW,
            decision="reroute",
            reason="other_operator",
            answered_from=AnsweredFrom.LIVE,
            batch_id="b",
            call_id=None,
            event_id=events.event_id(key),
            received_at=NOW,
            decided_at=NOW,
        )
    )


PORTED = events.of_port_change(PortChange("13972565391", "CMCC", "CTCC", NOW, NOW, True, "b", "e"))


def publish(broker_url: str, *sent: Event, event_batch: int = 1) -> None:
    publisher = publisher_for(broker_url, stream_length=1000, event_batch=event_batch)
    publisher.publish(sent)
    publisher.close()


def test_the_last_events_are_one_masked_line_each(redis_url: str) -> None:
    publish(redis_url, reroute("m1"), reroute("m2"), PORTED)
    env = environment(broker_url=redis_url)
    lines = presend("events", "--last", "2", env=env).stdout.splitlines()
    assert [line.split()[1:] for line in lines] == [
        ["sms.reroute", "139****5391", "m2", "other_operator", "→", "CTCC", "电信"],
        ["number.ported", "139****5391", "-", "移动", "→", "电信,", "doubtful"],
    ]
    assert len(presend("events", env=env).stdout.splitlines()) == 3


def test_json_is_what_was_sent(redis_url: str) -> None:
    publish(redis_url, sent := reroute("m1"))
    shown = presend("events", "--last", "1", "--json", env=environment(broker_url=redis_url)).stdout
    assert shown.encode() == sent.body + b"\n"


def test_a_batch_is_told_event_by_event(redis_url: str) -> None:
    publish(redis_url, *(sent := [reroute(f"m{number}") for number in range(5)]), event_batch=2)
    publish(redis_url, PORTED)
    shown = presend("events", "--last", "4", "--json", env=environment(broker_url=redis_url)).stdout
    assert shown.encode().splitlines() == [event.body for event in [*sent[-3:], PORTED]]


def test_types_are_picked_by_pattern(redis_url: str) -> None:
    publish(redis_url, reroute("m1"), reroute("o1", Lane.RECHARGE), PORTED)
    env = environment(broker_url=redis_url)
    shown = presend("events", "--type", "recharge.*", "--json", env=env).stdout
    assert [json.loads(line)["subject"] for line in shown.splitlines()] == ["o1"]


def test_rabbitmq_says_that_it_keeps_none(amqp_url: str) -> None:
    done = presend("events", env=environment(broker_url=amqp_url))
    assert done.returncode == 1
    assert "RabbitMQ keeps no past events: --follow" in done.stderr


@pytest.mark.parametrize("event_batch", [1, 10])
def test_following_shows_what_comes_until_ctrl_c(broker_url: str, event_batch: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stop = threading.Event()

    def keep_publishing() -> None:  # following has begun at some moment nobody is told of
        while not stop.wait(0.1):
            publish(broker_url, reroute("m1"), event_batch=event_batch)

    sender = threading.Thread(target=keep_publishing)
    with out.open("wb") as written:
        process = subprocess.Popen(
            command("events", "--follow"), env=environment(broker_url=broker_url), stdout=written
        )
    sender.start()
    try:
        until(lambda: b"sms.reroute" in out.read_bytes(), what="an event")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
    finally:
        stop.set()
        sender.join()
        process.kill()
        process.wait()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:9/0", "amqp://127.0.0.1:9//"])
def test_a_broker_that_is_away_is_told(url: str) -> None:
    done = presend("events", "--follow", env=environment(broker_url=url))
    assert done.returncode == 1
    assert "the broker does not answer" in done.stderr
