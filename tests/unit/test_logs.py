"""What a log line may never be, whatever it is given: two lines, a terminal's command, a number or a key."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from worker import logs, masking
from worker.cli.failures import told
from worker.errors import PresendError

NUMBER, PASSWORD = "13967452318", "correct-horse/battery"
KEY = "7c11'72au7\"8345c83\\b8ue81ac78972"
MOBILE = re.compile(r"(?<!\d)1[3-9]\d{9}(?!\d)")
UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError(NUMBER)


nasty = st.sampled_from(
    [
        NUMBER, f"+86{NUMBER}", "139 6745 2318", "１３９６７４５２３１８", "6745231", "8",
        KEY, f"amqp://shop:{PASSWORD}@broker:5672//", "password=",
        "\n", "\r\n", "\x1b[31m", "\x9b2J", "\x00", "\x7f", "\u2028", "\u202e", "\ue139", "\ud800",
        '", "event": "forged"}\n{', "Traceback (most recent call last):\n", "%s", "{", "\\",
    ]
)  # fmt: skip
texts = st.lists(nasty | st.text(max_size=8), max_size=8).map("".join) | st.text()
scalars = (
    texts
    | st.integers()
    | st.floats()
    | st.binary()
    | st.none()
    | st.sampled_from([int(NUMBER), float(NUMBER)])
)
values = st.recursive(
    scalars | texts.map(ValueError) | st.builds(Unprintable),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module", autouse=True)
def _secrets() -> Iterator[None]:
    before = dict(masking._secrets)
    masking.hide(KEY)
    masking.hide_password(f"amqp://shop:{PASSWORD.replace('/', '%2F')}@broker//")
    yield
    masking._secrets.clear()
    masking._secrets.update(before)


@pytest.fixture(scope="module")
def written() -> Iterator[Callable[..., str]]:
    """Runs something with logging set up as in a process of presend; what it wrote."""
    root, stderr = logging.getLogger(), sys.stderr
    handlers, level = root.handlers[:], root.level

    def run(work: Callable[[], object], *, json: bool = True) -> str:
        sys.stderr = io.StringIO()
        logs.configure(level="DEBUG", json=json, uncaught=False)
        try:
            work()
            return sys.stderr.getvalue()
        finally:
            sys.stderr = stderr

    yield run
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def fail(words: str | None) -> None:
    if words is not None:
        raise PresendError(words) from ValueError(words)


def check_harmless(text: str) -> None:
    assert text.isprintable()
    assert not MOBILE.search(UUID.sub("", text))
    for secret in (KEY, json.dumps(KEY)[1:-1], PASSWORD):
        assert secret not in text


@settings(max_examples=400, deadline=None)
@given(
    event=texts,
    fields=st.dictionaries(texts.map("x{}".format), values, max_size=4),
    failure=st.none() | texts,
)
def test_a_record_is_one_harmless_line(
    written: Callable[..., str], event: str, fields: dict[str, Any], failure: str | None
) -> None:
    def work() -> None:
        try:
            fail(failure)
        except PresendError:
            logs.get("any").exception(event, **fields)
        else:
            logs.get("any").info(event, **fields)

    line = written(work)
    assert line.endswith("\n")
    check_harmless(line[:-1])
    record = json.loads(line)
    assert max(len(str(value).encode()) for value in record.values()) <= 2000
    assert {"event", "level", "timestamp"} <= record.keys()
    on_terminal = written(work, json=False).rstrip("\n").split("\n")
    assert all(line.startswith("    | ") for line in on_terminal[1:])
    for shown in on_terminal:
        check_harmless(shown)


@settings(max_examples=200, deadline=None)
@given(message=texts, arguments=st.lists(values, max_size=2))
def test_a_librarys_record_too(written: Callable[..., str], message: str, arguments: list[Any]) -> None:
    """Its words, or where they do not fit their arguments, that they did not."""
    line = written(lambda: logging.getLogger("kombu.any").warning(message, *arguments))
    check_harmless(line.removesuffix("\n"))
    assert "event" in json.loads(line)


def test_what_nobody_caught_is_a_record(written: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging, "captureWarnings", lambda _on: None)

    def work() -> None:
        logs.configure(json=True)
        thread = threading.Thread(target=lambda: int(f"no {NUMBER}\x1b[2J"), name="lane")
        thread.start()
        thread.join()
        sys.excepthook(ValueError, ValueError(KEY), None)

    of_thread, of_process = map(json.loads, written(work).splitlines())
    assert (of_thread["event"], of_process["event"]) == ("thread_failed", "process_failed")
    assert "139****2318" in of_thread["exception"]
    assert "[hidden]" in of_process["exception"]


def test_a_long_field_keeps_its_end(written: Callable[..., str]) -> None:
    record = json.loads(written(lambda: logs.get("any").info("e", reason="长" * 5000 + "the end")))
    assert record["reason"].endswith("the end")


@pytest.mark.parametrize(
    "words", [KEY, f"postgresql://p:{PASSWORD}@h/d", "redis://:short@h", "host=h password=pw x"]
)
def test_a_commands_error_shows_no_secret(words: str) -> None:
    message = told(PresendError(f"cannot use {words}")).message
    assert "[hidden]" in message
    for secret in (KEY, PASSWORD, "short", "pw"):
        assert secret not in message
