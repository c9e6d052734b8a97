"""``presend dead``: what is shown, what is sent again, what is left, and what a crash leaves."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu import Connection
from sqlalchemy import Engine

from tests.commands import environment, presend
from worker.deliveries import Delivery, read_message
from worker.errors import NotConfirmed
from worker.portability.requests import Lane
from worker.producing.replay import NO_ARGUMENTS, NO_TASK, replay
from worker.queues import lane_queues
from worker.storage import dead_letters, engine, operator_actions
from worker.storage.dead_letters import DeadLetter
from worker.storage.engine import connect
from worker.storage.ids import new_id

BEGIN = datetime(2026, 11, 24, tzinfo=UTC)
GOOD = {"message_id": "m1", "mobile": "13972565391", "operator": "移动"}
BYTES = {"base64": "/w==", "content_type": "application/x-python-serialize"}


@pytest.fixture
def database(database_url: str) -> Any:
    made = connect(database_url, connections=2)
    yield made
    made.dispose()


@pytest.fixture
def env(database_url: str, redis_url: str) -> dict[str, str]:
    return environment(database_url=database_url, broker_url=redis_url, redis_url=redis_url)


def park(database: Engine, *letters: tuple[str | None, Any, str]) -> list[str]:
    made = [
        DeadLetter(new_id(), task, payload, reason, "sms", BEGIN + timedelta(seconds=n))
        for n, (task, payload, reason) in enumerate(letters)
    ]
    engine.transact(database, lambda to: dead_letters.add(to, made))
    return [letter.id for letter in made]


def queued(redis_url: str) -> list[Any]:
    found = []
    with Connection(redis_url) as connection, connection.channel() as channel:
        for queue in lane_queues(redis=True):
            while (message := queue(channel).get(no_ack=True)) is not None:
                found.append(message)
    return found


def listed(env: Mapping[str, str], *options: str) -> list[Any]:
    done = presend("dead", "list", "--json", *options, env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_list_is_masked_and_json_is_whole(database: Engine, env: dict[str, str]) -> None:
    (letter_id,) = park(database, ("sms.recheck", GOOD | {"x": "\x1b[31m"}, "operator is none of"))
    shown = presend("dead", "list", env=env).stdout
    assert "13972565391" not in shown
    assert "139****5391" in shown
    assert "\x1b" not in shown
    assert letter_id in shown
    assert listed(env)[0]["payload"]["mobile"] == "13972565391"


def test_a_number_where_none_belongs_is_masked_too(database: Engine, env: dict[str, str]) -> None:
    park(
        database,
        ("13972565391", None, "a strange task"),
        ("１３９７２５６５３９１", {"x": "１３９７２５６５３９１"}, "to １３９７２５６５３９１"),
    )
    shown = presend("dead", "list", env=env).stdout
    assert shown.count("139****5391") == 4
    assert "5391" not in shown.replace("****5391", "")
    assert "null" in [line.strip() for line in shown.splitlines()], "what came is shown as JSON"


def test_a_body_that_could_not_be_decoded_is_shown_by_its_size(database: Engine, env: dict[str, str]) -> None:
    body = base64.b64encode(b"\x80\x04mobile 13972565391").decode()
    payload = {"base64": body, "content_type": "application/x-python-serialize"}
    park(database, (None, payload, "not decoded"), ("sms.recheck", BYTES, "not decoded"))
    shown = presend("dead", "list", env=env).stdout
    assert body not in shown
    assert "<20 bytes that could not be decoded>, application/x-python-serialize" in shown
    assert "<1 byte that could not be decoded>" in shown
    assert listed(env)[0]["payload"] == payload


def test_no_line_ends_in_blanks_in_a_pipe(database: Engine, env: dict[str, str]) -> None:
    park(database, ("sms.recheck", GOOD, "a"), ("sms.recheck", GOOD, "b"))
    for options in ((), ("--replayed", "--limit", "1")):
        lines = presend("dead", "list", *options, env=env).stdout.splitlines()
        assert len(lines) >= 3
        assert lines[0].startswith("2026-11-24 08:00:00+08:00  sms.recheck  ")
        assert [line for line in lines if line != line.rstrip()] == []


def test_a_pipe_is_as_wide_as_columns_says(database: Engine, env: dict[str, str]) -> None:
    park(database, ("sms.recheck", GOOD, "a reason of many words " * 8))
    lines = presend("dead", "list", env=env | {"COLUMNS": "80"}).stdout.splitlines()
    assert 60 < max(map(len, lines)) <= 80


def test_filters_and_limit(database: Engine, env: dict[str, str]) -> None:
    park(
        database,
        ("sms.recheck", GOOD, "100% wrong"),
        ("recharge.precheck", GOOD, "100 times wrong"),
        ("sms.recheck", GOOD, "Wrong"),
    )
    assert [row["reason"] for row in listed(env, "--reason", "wrong")] == [
        "100% wrong",
        "100 times wrong",
        "Wrong",
    ]
    assert [row["reason"] for row in listed(env, "--reason", "100%")] == ["100% wrong"]
    assert len(listed(env, "--task", "sms.recheck")) == 2
    assert "the oldest 1 of 3" in presend("dead", "list", "--limit", "1", env=env).stdout


def test_no_letters_is_no_table(env: dict[str, str], database: Engine) -> None:
    assert presend("dead", "list", env=env).stdout == "no dead letters\n"


def test_a_replayed_letter_is_a_message_of_a_new_id_and_marked(
    database: Engine, env: dict[str, str], redis_url: str
) -> None:
    letter_id, *_ = park(database, ("sms.recheck", GOOD, "a"), ("recharge.precheck", {"order_id": "o"}, "b"))
    done = presend("dead", "replay", "--id", letter_id, env=env)
    assert (done.returncode, done.stdout) == (0, "sent 1 letter again, at most 1 look-up\n")
    (message,) = queued(redis_url)
    assert read_message(message).arguments == GOOD
    assert message.headers["task"] == "sms.recheck"
    assert message.headers["id"] != letter_id
    # were it still wrong, it would be a letter of its own
    delivery = Delivery(message, message.headers["id"], "sms.recheck", Lane.SMS, False, GOOD, BEGIN)
    assert delivery.letter(0, GOOD, "still wrong").id != letter_id
    assert [row["task"] for row in listed(env)] == ["recharge.precheck"]
    again = presend("dead", "replay", "--id", letter_id, env=env)
    assert "passed over 1: not there, or sent again before" in again.stdout
    assert queued(redis_url) == []


def test_who_replays_what_and_why_is_kept_and_what_came_of_it(database: Engine, env: dict[str, str]) -> None:
    park(database, ("sms.recheck", GOOD, "a 13912345678"), ("recharge.precheck", {"order_id": "o"}, "b"))
    choice = ("dead", "replay", "--reason", "a 13912345678", "--max-lookups", "5")
    assert presend(*choice, "--dry-run", env=env).returncode == 0
    assert engine.read(database, lambda to: operator_actions.latest(to, most=9)) == []
    assert presend(*choice, "--by", "presend", env=env).returncode == 2
    assert presend(*choice, "--why", "the gateway is well", "--by", "mei", env=env).returncode == 0
    kept = engine.read(database, lambda to: operator_actions.latest(to, most=9))
    assert {(one.who, one.action, one.subject) for one in kept} == {("mei", "replay", "dead letters")}
    assert [one.reason for one in reversed(kept)] == [
        "the gateway is well (at most 5 look-ups; contains 'a 139****5678')",
        "1 of 1 letters sent, at most 1 look-up",
    ]


@pytest.mark.parametrize(
    ("options", "references"),
    [
        (("--all",), ["a", "b", "c"]),
        (("--task", "sms.recheck"), ["a", "c"]),
        (("--reason", "twice"), ["b", "c"]),
        (("--reason", "TWICE", "--task", "sms.recheck"), ["c"]),
    ],
)
def test_what_is_replayed_is_what_was_asked_for(
    database: Engine, env: dict[str, str], redis_url: str, options: Sequence[str], references: list[str]
) -> None:
    park(
        database,
        ("sms.recheck", {"n": "a"}, "once"),
        ("recharge.precheck", {"n": "b"}, "twice"),
        ("sms.recheck", {"n": "c"}, "twice"),
    )
    dry = presend("dead", "replay", *options, "--dry-run", env=env)
    assert dry.stdout.startswith(f"would send {len(references)} letter")
    assert queued(redis_url) == []
    assert presend("dead", "replay", *options, env=env).returncode == 0
    assert sorted(read_message(each).arguments["n"] for each in queued(redis_url)) == references


@pytest.mark.parametrize(
    ("letter", "why"),
    [
        ((None, GOOD), NO_TASK),
        (("billing.run", GOOD), NO_TASK),
        (("sms.recheck", BYTES), NO_ARGUMENTS),
        (("sms.recheck", [1, 2]), NO_ARGUMENTS),
        (("sms.recheck", "text"), NO_ARGUMENTS),
    ],
)
def test_what_is_no_tasks_arguments_is_left_and_explained(
    database: Engine, env: dict[str, str], redis_url: str, letter: tuple[str | None, Any], why: str
) -> None:
    park(database, (*letter, "unreadable"), ("sms.recheck", GOOD, "well"))
    done = presend("dead", "replay", "--all", env=env)
    assert done.stdout.startswith("sent 1 letter again, at most 1 look-up\n")
    assert f"left 1 where they are: {why}" in done.stdout
    assert len(queued(redis_url)) == 1
    assert [row["reason"] for row in listed(env)] == ["unreadable"]


@pytest.mark.parametrize("options", [(), ("--all", "--task", "sms.recheck"), ("--all", "--reason", "x")])
def test_it_must_be_said_what_to_replay(env: dict[str, str], options: Sequence[str]) -> None:
    assert presend("dead", "replay", *options, env=env).returncode == 2


def test_nothing_is_marked_before_its_confirm(database: Engine) -> None:
    class Broken:
        sent = 0

        def send(self, task: str, arguments: Mapping[str, Any]) -> str:
            if self.sent == 150:
                raise NotConfirmed("the broker is away")
            self.sent += 1
            return ""

    ids = park(database, *[("sms.recheck", GOOD, "r")] * 250)
    with pytest.raises(NotConfirmed):
        list(replay(database, Broken(), ids))
    left = engine.read(database, dead_letters.ids)
    assert left == ids[100:]  # the part that broke off is whole again: some of it goes twice, none is lost


def test_a_message_of_too_many_items_is_sent_again_in_parts(
    database: Engine, env: dict[str, str], redis_url: str
) -> None:
    items = [GOOD | {"message_id": f"m{n}"} for n in range(2001)]
    park(database, ("sms.recheck_many", {"items": items}, "2001 items: a message carries at most 1000"))
    assert presend("dead", "replay", "--all", env=env).returncode == 0
    parts = [read_message(message).arguments["items"] for message in queued(redis_url)]
    assert sorted(len(part) for part in parts) == [1, 1000, 1000]
    assert sorted(item["message_id"] for part in parts for item in part) == sorted(
        item["message_id"] for item in items
    )
