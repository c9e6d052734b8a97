"""The demo's figures: held against each other, measured, and shown in 80 columns."""

from __future__ import annotations

import io
import itertools
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from worker.demo import places, show
from worker.demo.accounts import accounts
from worker.demo.figures import Asked, Calls, Change, Figures, Letter, Record
from worker.demo.screen import Dashboard, Moment
from worker.demo.sending import Answered, Sent
from worker.demo.show import Stage
from worker.demo.traffic import Message, day
from worker.demo.waits import Waits, measure, percentile
from worker.errors import PresendError, SettingsError

FIGURES = Figures(
    decisions=Counter({("recharge", "confirmed"): 3, ("sms", "reroute"): 1}),
    virtual=Counter(),
    answered_from=Counter(live=3, stored=1),
    requests=4,
    numbers=3,
    one_each=4,
    calls={"recharge": Calls(2, 2, 1, 2, 0), "sms": Calls(1, 1, 1, 1, 0)},
    dead_letters=1,
    port_changes=1,
)
EVENTS = Counter({"recharge.confirmed": 3, "sms.reroute": 1, "number.ported": 1})
SENT = Sent(
    messages=6,
    items=6,
    bad=1,
    waited_for=2,
    ports=1,
    keys={("recharge", "a", 1), ("recharge", "b", 1), ("recharge", "c", 1), ("sms", "a", 1)},
)


def disagreeing(**changed: Any) -> set[str]:
    told: dict[str, Any] = {"sent": SENT, "answers": 2, "figures": FIGURES, "events": EVENTS, "billed": 3}
    return {account.one for account in accounts(**(told | changed)) if not account.agrees}


def test_figures_that_count_the_same_agree() -> None:
    assert disagreeing() == set()


@pytest.mark.parametrize(
    ("changed", "who"),
    [
        ({"billed": 4}, "billed by the provider"),
        ({"billed": 2}, "billed by the provider"),
        ({"answers": 1}, "answers waited for"),
        ({"events": EVENTS + Counter({"sms.resend": 1})}, "events received"),
        ({"events": EVENTS - Counter({"sms.reroute": 1})}, "decisions and ports stored"),
        ({"sent": replace(SENT, bad=2)}, "bad items sent"),
        ({"sent": replace(SENT, ports=2)}, "numbers that moved"),
        ({"sent": replace(SENT, keys=SENT.keys | {("sms", "b", 1)})}, "different requests sent"),
    ],
)
def test_each_count_that_is_off_is_named(changed: dict[str, Any], who: str) -> None:
    assert disagreeing(**changed) == {who}


def test_the_provider_may_have_billed_what_was_lost_but_not_more() -> None:
    lost = replace(FIGURES, calls=FIGURES.calls | {"direct": Calls(1, 2, 2, 0, 2)})
    assert disagreeing(figures=lost, billed=5) == set()
    assert disagreeing(figures=lost, billed=6) == {"billed by the provider"}


def test_what_was_saved_is_measured_against_one_look_up_a_request() -> None:
    assert FIGURES.billed == 3
    assert FIGURES.saved == 0.25
    assert replace(FIGURES, one_each=0, calls={}).saved == 0.0


def test_what_is_sent_is_counted_by_key_and_without_what_is_bad() -> None:
    sent = Sent()
    item = {"message_id": "m-1", "mobile": "13800138000", "operator": "CMCC"}
    sent.add(Message(0.1, "sms.recheck", item))
    sent.add(Message(0.1, "sms.recheck", item))
    sent.add(Message(0.2, "sms.recheck_many", {"items": [item | {"attempt": 2}, {"mobile": "x"}]}, bad=1))
    sent.add(Message(0.3, "recharge.precheck", {"order_id": "o-1", "mobile": "13800138000"}, watched=True))
    assert sent == Sent(
        messages=4,
        items=5,
        bad=1,
        waited_for=1,
        keys={("sms", "m-1", 1), ("sms", "m-1", 2), ("recharge", "o-1", 1)},
    )


def test_a_wait_is_split_into_the_providers_time_and_presends_own() -> None:
    answers = [Answered("a", 0.13, None), Answered("b", 0.02, None), Answered("c", 0.5, None)]
    asked = [Asked("a", "live", 0.1), Asked("b", "stored", 0.0), Asked("x", "live", 0.1)]
    waits = measure(answers, asked)
    assert waits.bought == [0.13]
    assert waits.own == [pytest.approx(0.03)]
    assert waits.stored == [0.02]


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent: int, value: int) -> None:
    assert percentile(range(1, 101), percent) == value
    assert percentile([], percent) is None


LARGE = Moment(
    share=0.5,
    sent=Sent(items=999_999),
    items=999_999,
    figures=replace(FIGURES, requests=999_999, decisions=Counter({("recharge", "confirmed"): 999_999})),
    billed=888_888,
    events=Counter({"recharge.confirmed": 999_999}),
    waits=Waits([9.999], [9.999], [9.999]),
)


@pytest.mark.parametrize("width", [80, 140])
def test_large_figures_fit_and_nothing_is_cut(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(Dashboard(LARGE))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 24
    assert "…" not in captured.get()
    assert "12:00" in lines[0]
    assert {"999,999", "888,888", "9999 ms", "undeliverable"} <= {
        word.strip() for line in lines for word in line.split("  ")
    }


class FakeLedger:
    def figures(self) -> Figures:
        return FIGURES

    def asked(self, references: Any) -> list[Asked]:
        return []

    def records(self, msisdns: Any) -> list[Record]:
        return [Record("13972565391", "CMCC", "CTCC", "湖北-宜昌", "ported")]

    def first_letter(self) -> Letter:
        return Letter("sms.recheck", {"message_id": "m-9"}, "argument operator is missing")

    def first_change(self) -> Change:
        return Change("13800138000", "CMCC", "CTCC", "sms.reroute", "CMCC", "CTCC")


class FakeProcess:
    returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode


class FakeProvider:
    def __init__(self, billed: int) -> None:
        self._billed = billed
        self.process = FakeProcess()

    def billed(self) -> int:
        return self._billed


class FakeSenders:
    sent = SENT
    answers = (Answered("a", 0.1, None), Answered("b", 0.1, None))

    def send(self, day: Any, *, seconds: float) -> None:
        pass

    def busy(self) -> bool:
        return False


class FakeEvents:
    by_type = EVENTS


def stage(billed: int) -> tuple[Any, io.StringIO]:
    shown = io.StringIO()
    console = Console(file=shown, width=80)
    parts: list[Any] = [FakeProvider(billed), FakeProcess(), FakeLedger(), FakeEvents(), FakeSenders()]
    return Stage(console, *parts), shown


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(show.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(show.time, "sleep", lambda _seconds: None)


def test_a_demo_whose_figures_agree_says_so(impatient: None) -> None:
    made, shown = stage(billed=3)
    assert made.play(day(1, 200), seconds=1.0)
    assert "DISAGREES" not in shown.getvalue()
    assert "138****8000 left 移动 for 电信" in shown.getvalue()
    assert "argument operator is missing" in shown.getvalue()


def test_a_demo_whose_figures_disagree_says_which(impatient: None) -> None:
    made, shown = stage(billed=7)
    assert not made.play(day(1, 200), seconds=1.0)
    (line,) = [line for line in shown.getvalue().splitlines() if "DISAGREES" in line]
    assert " ".join(line.split()) == "billed by the provider 7 billed, says the ledger 3 DISAGREES"


def test_a_process_that_ends_ends_the_demo(impatient: None) -> None:
    made, _ = stage(billed=3)
    made.workers.returncode = 78
    with pytest.raises(PresendError, match="workers ended with exit code 78"):
        made.play(day(1, 200), seconds=1.0)


def test_one_demo_a_folder(tmp_path: Path) -> None:
    place = places.prepare(tmp_path / "demo")
    with place.held(), pytest.raises(SettingsError, match=f"process {os.getpid()}"), place.held():
        pass
    with place.held():
        pass


def test_the_log_begins_empty_is_private_and_its_end_is_told(tmp_path: Path) -> None:
    place = places.prepare(tmp_path / "demo")
    place.log.write_text("of the last time\n")
    with place.held():
        assert place.last_words() == ""
        for _ in range(2):  # two processes append
            with place.open_log() as log:
                log.write("".join(f"line {number}\n" for number in range(10)))
        assert place.last_words().splitlines()[-1].strip() == "line 9"
        assert len(place.last_words().splitlines()) == 15


def test_a_folder_laid_out_by_a_link_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="not a folder of this user's"):
        places.prepare(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() == 0, reason="root takes /var/cache")
def test_without_a_home_the_temporary_folder_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(tmp_path))
    assert places.prepare(None).root == tmp_path / f"presend-demo-{os.geteuid()}"
