"""``presend submit`` into Redis: the screen, the exit codes, and an interruption."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.commands import command, environment, presend, until

HEADER = "message_id,mobile,operator\n"


@pytest.fixture
def env(redis_url: str) -> dict[str, str]:
    return environment(broker_url=redis_url, redis_url=redis_url)


def sent(redis_url: str) -> list[str]:
    """The references in the sms queue, in the order they were sent."""
    import base64

    with redis.Redis.from_url(redis_url) as client:
        raw: Any = client.lrange("sms", 0, -1)
    bodies = [json.loads(base64.b64decode(json.loads(message)["body"])) for message in reversed(raw)]
    return [item["message_id"] for _, kwargs, _ in bodies for item in kwargs["items"]]


def test_a_file_is_sent_and_its_bad_rows_are_told(
    tmp_path: Path, env: dict[str, str], redis_url: str
) -> None:
    file = tmp_path / "failed.csv"
    file.write_text(
        HEADER + "m1,13972565391,移动\nm2,139725653911x,移动\nm3,13972565391,CUCC\n", encoding="utf-8-sig"
    )
    done = presend("submit", "--lane", "sms", str(file), "--source", "gw", env=env)
    assert done.returncode == 0
    assert sent(redis_url) == ["m1", "m3"]
    assert "line 3: mobile holds other characters" in done.stderr
    assert "2 rows in 1 message" in done.stderr
    assert "failed.csv.rejected.csv" in done.stderr
    assert "1397256539" not in done.stderr
    again = presend("submit", "--lane", "sms", str(file), "--source", "gw", env=env)
    assert "nothing new" in again.stderr
    assert sent(redis_url) == ["m1", "m3"]
    presend("submit", "--lane", "sms", str(file), "--restart", env=env)
    assert sent(redis_url) == ["m1", "m3", "m1", "m3"]


def test_stdin_is_taken(env: dict[str, str], redis_url: str) -> None:
    rows = HEADER + "m1,13972565391,移动\nm2,x,移动\n"
    done = presend("submit", "--lane", "sms", "-", env=env, stdin=rows.encode())
    assert done.returncode == 0
    assert sent(redis_url) == ["m1"]
    assert "line 3: mobile holds" in done.stderr


def test_another_encoding_is_named_and_nothing_sent(
    tmp_path: Path, env: dict[str, str], redis_url: str
) -> None:
    file = tmp_path / "gbk.csv"
    file.write_text(HEADER + "m1,13972565391,移动\n", encoding="gb18030")
    done = presend("submit", "--lane", "sms", str(file), env=env)
    assert done.returncode == 1
    assert "try --encoding gb18030" in done.stderr
    assert sent(redis_url) == []
    assert presend("submit", "--lane", "sms", str(file), "--encoding", "gb18030", env=env).returncode == 0
    assert sent(redis_url) == ["m1"]


def test_a_broker_that_is_away_is_told_and_nothing_noted(tmp_path: Path, env: dict[str, str]) -> None:
    file = tmp_path / "failed.csv"
    file.write_text(HEADER + "m1,13972565391,移动\n")
    away = env | {"PRESEND_BROKER_URL": "redis://127.0.0.1:9/0"}
    done = presend("submit", "--lane", "sms", str(file), env=away)
    assert done.returncode == 1
    assert "the broker does not answer" in done.stderr
    assert "nothing was sent" in done.stderr
    assert not (tmp_path / "failed.csv.progress").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_file_goes_on_and_loses_nothing(
    tmp_path: Path, env: dict[str, str], redis_url: str, number: signal.Signals
) -> None:
    file = tmp_path / "big.csv"
    references = [f"m{n}" for n in range(60_000)]
    file.write_text(HEADER + "".join(f"{each},13972565391,移动\n" for each in references))
    line = command("submit", "--lane", "sms", "--batch", "10", str(file))
    with subprocess.Popen(line, env=env, stderr=subprocess.PIPE) as process:
        until(lambda: len(sent(redis_url)) > 100)
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    before = sent(redis_url)
    assert len(before) < len(references)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert b"the same command goes on there" in err
    done = presend("submit", "--lane", "sms", "--batch", "1000", str(file), env=env)
    assert "going on after line" in done.stderr
    after = sent(redis_url)[len(before) :]
    assert list(dict.fromkeys([*before, *after])) == references
    assert len(before) + len(after) <= len(references) + 10  # at most the batch that was not noted
