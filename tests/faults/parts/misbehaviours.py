"""A provider that misbehaves: each fault once for a batch of a thousand, and those that last for a while."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.acceptance.harness import Place
from tests.acceptance.oracle import Expected, expected
from tests.acceptance.provider import Asked, Door, endless_plain_numbers
from tests.acceptance.traffic import Key
from tests.acceptance.waiting import eventually
from tests.faults import evidence
from tests.faults.evidence import Evidence
from tests.faults.invariants import Report, check
from tests.faults.leaks import leaks
from tests.faults.misbehaviours import INDEX, NUMBERS, TIMEOUTS, Case, Lasting
from worker.sandbox.provider import DEFAULT_APIKEY

WORKERS_A_LANE = 2
RECHARGES_A_SECOND = 10
LONGEST_PAUSE_SECONDS = 30.0
_MARGIN_SECONDS = 5.0
_SHORTEST_GAP_SECONDS = 1.0
SETTINGS = {"provider_timeout_seconds": f"{TIMEOUTS[0]},{TIMEOUTS[1]}"}


@dataclass
class Story:
    """What is told to the provider's customers, and what must come of it."""

    here: Place
    door: Door
    answers: dict[Key, Expected] = field(default_factory=dict)
    numbers: dict[Key, str] = field(default_factory=dict)
    tags: dict[str, Key | None] = field(default_factory=dict)
    # numbers whose answer is the fault itself
    at_fault: set[str] = field(default_factory=set)
    # seconds from the end of each lasting fault until all was decided
    recoveries: list[float] = field(default_factory=list)
    _supply: Iterator[str] = field(default_factory=endless_plain_numbers)

    @classmethod
    def begin(cls, here: Place) -> Story:
        """Two workers a lane, upkeep, and a provider whose door can be shut."""
        story = cls(here, Door(here.sandbox))
        here.settings |= SETTINGS
        here.provider_url = story.door.url
        here.upkeep()
        workers = [here.worker(lane, ready=False) for lane in ("sms", "recharge") * WORKERS_A_LANE]
        for worker in workers:
            worker.wait_for(" ready.", seconds=60)
        return story

    def deal(self, count: int) -> list[str]:
        """Numbers nobody has asked for yet."""
        return [next(self._supply) for _ in range(count)]

    def item(self, lane: str, number: str) -> dict[str, Any]:
        """The arguments of one request, noted."""
        reference = f"R{number}"
        key = Key(lane, "", reference, 1)
        self.answers[key] = expected(lane, number, "CMCC", failure_class="none", attempt=1)
        self.numbers[key] = number
        self.tags[reference] = key
        name = "message_id" if lane == "sms" else "order_id"
        return {name: reference, "mobile": number, "operator": "CMCC", "x_tag": reference}

    # -- one fault, once ----------------------------------------------------------------------

    def once(self, case: Case) -> None:
        """A batch of a thousand meets the fault; everything said in the case is checked."""
        here, numbers = self.here, self.deal(NUMBERS)
        fault_is_of = numbers[INDEX]
        before = _Before(here)
        ordered = here.sandbox.faults.add(case.ordered(fault_is_of))
        here.send("sms.recheck_many", items=[self.item("sms", number) for number in numbers])
        if case.of_number and not case.stays:
            _struck(here, fault_is_of, before.arrived)
            here.sandbox.faults.remove(ordered.id)
        paused = self._settled(before, NUMBERS)
        here.sandbox.faults.remove(ordered.id)

        rows = {str(row["msisdn"]): row for row in before.rows()}
        letters = before.letters()
        at_fault = rows.pop(fault_is_of, None)
        told = {(row["decision"], row["reason"]) for row in rows.values()}
        _same((len(rows), told), (NUMBERS - 1, {("resend", "same_operator")}), "the others")
        if case.at_fault is None:
            _same([letter["payload"]["mobile"] for letter in letters], [fault_is_of], "dead letters")
            assert case.reason in letters[0]["reason"], letters[0]["reason"]
        else:
            _same(letters, [], "dead letters")
            assert at_fault is not None, "the number at fault is not decided"
            _same((at_fault["decision"], at_fault["reason"]), case.at_fault, "the number at fault")
        if case.at_fault != ("resend", "same_operator"):
            self._leave_to_the_case(fault_is_of)

        arrived = here.sandbox.arrived[before.arrived :]
        eventually(lambda: all(call.ended for call in arrived), "the end of late answers")
        calls = before.calls()
        _same(dict(Counter(call["outcome"] for call in calls)), case.calls, "calls")
        bills = Counter({number: here.sandbox.bill.times_billed(number) for number in numbers})
        _same(sum(max(0, times - 1) for times in bills.values()), case.billed_again, "billed again")
        unbilled = {number for number in numbers if not bills[number]}
        assert unbilled <= {fault_is_of}, "answered, but never bought"
        _same(sum(len(call["unanswered"] or ()) for call in calls), case.listed, "listed")
        _same(before.gates_closed(), case.closes_gate, "the gate closed")
        _same(paused, case.breaks, "the lane paused")
        eventually(lambda: not here.rows("SELECT * FROM lane_breaker"), "the lane to call freely again")
        assert not here.rows("SELECT * FROM gate")

    def _settled(self, before: _Before, count: int) -> bool:
        """Wait until so many are decided or parked; whether the lane was seen to pause meanwhile."""
        paused = False
        deadline = time.monotonic() + 40
        while before.settled() < count:
            assert time.monotonic() < deadline, f"{before.settled()} of {count} settled within 40 s"
            paused = paused or bool(self.here.rows("SELECT * FROM lane_breaker"))
            time.sleep(0.02)
        return paused

    def _leave_to_the_case(self, number: str) -> None:
        """Take a number out of what is checked in the end: its answer was the fault, and is checked."""
        self.at_fault.add(number)
        tag = f"R{number}"
        key = self.tags.pop(tag)
        assert key is not None
        del self.answers[key], self.numbers[key]

    # -- one fault, for a while ---------------------------------------------------------------

    def lasting(self, lasting: Lasting, *, backlog: int, seconds: float, quiet_after_seconds: float) -> None:
        """Hold the fault while both lanes have work; no storm meanwhile, and all is decided soon after."""
        here, sms = self.here, self.deal(backlog)
        before = _Before(here)
        if lasting.fault is None:
            self.door.shut()
        else:
            here.sandbox.faults.add(lasting.fault)
        for number in sms:
            self.item("sms", number)
        here.send_many("sms", sms, tagged=True)
        began = time.time()
        recharges = self._recharges_until(began + seconds)
        ended = time.time()
        if lasting.fault is None:
            self.door.open()
        else:
            here.sandbox.faults.clear()
        _no_storm(self._calls(before, set(recharges)), began + quiet_after_seconds, ended)
        eventually(
            lambda: before.settled() >= len(sms) + len(recharges),
            f"all decided after the end of: {lasting.name}",
            seconds=LONGEST_PAUSE_SECONDS + _MARGIN_SECONDS,
            each_seconds=0.1,
        )
        self.recoveries.append(time.time() - ended)

    def _recharges_until(self, end: float) -> list[str]:
        """Shoppers who come all the while."""
        sent: list[str] = []
        while time.time() < end:
            number = self.deal(1)[0]
            self.item("recharge", number)
            self.here.send_many("recharge", [number], tagged=True)
            sent.append(number)
            time.sleep(1 / RECHARGES_A_SECOND)
        return sent

    def _calls(self, before: _Before, recharges: set[str]) -> dict[str, list[Asked]]:
        """The calls by lane, as the provider saw them; where it could see none, as they were named."""
        arrived = self.here.sandbox.arrived[before.arrived :]
        found: dict[str, list[Asked]] = {"recharge": [], "sms": []}
        for call in arrived:
            found["recharge" if recharges.intersection(call.mobiles) else "sms"].append(call)
        if not arrived:
            for row in before.calls():
                end = row["answered_at"] and row["answered_at"].timestamp()
                found[row["lane"]].append(Asked(("",) * row["numbers"], row["sent_at"].timestamp(), end))
        return found

    # -- the end ------------------------------------------------------------------------------

    def end(self) -> Report:
        """Let everything finish, stop, and hold the whole of it to the invariants."""
        here = self.here
        here.check_events(seconds=45)
        eventually(lambda: not here.unfinished(), "the end of everything", seconds=45)
        here.stop()
        self.door.shut()
        return check(self._evidence())

    def _evidence(self) -> Evidence:
        here = self.here
        found = evidence.of_postgres(here.database_url)
        gone = {f"R{number}" for number in self.at_fault}
        found["ledger"] = [row for row in found["ledger"] if row["reference"] not in gone]
        found["letters"] = [row for row in found["letters"] if row["tag"] not in gone]
        found["records"] = [row for row in found["records"] if str(row["msisdn"]) not in self.at_fault]
        events = [evidence.seen(received.body) for received in here.events.read()]
        bills = Counter(here.sandbox.bills())
        asked = self.numbers.values()
        return Evidence(
            answers=self.answers,
            numbers=self.numbers | {Key("", "", number, 1): number for number in self.at_fault},
            tags=self.tags,
            accepted=set(self.tags),
            bills=bills,
            events=[one for one in events if one.key is None or one.key.reference not in gone],
            **found,
            queued=here.messages_left(),
            leaks=leaks([one.log_path for one in here.processes], asked, DEFAULT_APIKEY),
        )


class _Before:
    """The moment before a fault: what has come since is its doing."""

    def __init__(self, here: Place) -> None:
        self._here = here
        self._at = here.rows("SELECT now() AS at")[0]["at"]
        self._closings = self._count_closings()
        self.arrived = len(here.sandbox.arrived)

    def settled(self) -> int:
        found = self._here.rows(
            "SELECT (SELECT count(*) FROM check_request WHERE received_at >= %s)"
            " + (SELECT count(*) FROM dead_letter WHERE received_at >= %s) AS n",
            self._at,
            self._at,
        )
        return int(found[0]["n"])

    def rows(self) -> list[dict[str, Any]]:
        return self._here.rows("SELECT * FROM check_request WHERE received_at >= %s", self._at)

    def letters(self) -> list[dict[str, Any]]:
        return self._here.rows("SELECT * FROM dead_letter WHERE received_at >= %s", self._at)

    def calls(self) -> list[dict[str, Any]]:
        return self._here.rows("SELECT * FROM lookup_call WHERE sent_at >= %s ORDER BY sent_at", self._at)

    def gates_closed(self) -> bool:
        return self._count_closings() > self._closings

    def _count_closings(self) -> int:
        return len(self._here.rows("SELECT * FROM operator_action WHERE action = 'close'"))


def _same(found: object, wanted: object, what: str) -> None:
    assert found == wanted, f"{what}: {found}, not {wanted}"


def _struck(here: Place, number: str, arrived_before: int) -> None:
    """Wait until a call with this number has been worked."""
    eventually(
        lambda: any(number in call.mobiles and call.ended for call in here.sandbox.arrived[arrived_before:]),
        "the fault to strike",
        each_seconds=0.003,
    )


def _no_storm(calls: dict[str, list[Asked]], quiet_from: float, end: float) -> None:
    """Once quiet: a lane asks for one number, at most once a second, and one worker at a time."""
    for lane, made in calls.items():
        quiet = [call for call in sorted(made, key=lambda call: call.began) if quiet_from <= call.began < end]
        assert {len(call.mobiles) for call in quiet} <= {1}, f"{lane}: more than one number in a probe"
        _apart(lane, quiet)


def _apart(lane: str, calls: Sequence[Asked]) -> None:
    for earlier, later in pairwise(calls):
        gap = later.began - earlier.began
        assert gap >= _SHORTEST_GAP_SECONDS, f"{lane}: two calls within {gap:.2f} s"
        assert earlier.ended is None or earlier.ended <= later.began, f"{lane}: two probes at once"


def run(
    here: Place,
    once: Sequence[Case],
    lasting: Sequence[Lasting],
    *,
    backlog: int,
    seconds: float,
    quiet_after_seconds: float,
) -> tuple[Report, Story]:
    """Tell the whole story."""
    story = Story.begin(here)
    failed: list[str] = []
    for case in once:
        with _noting(failed, story, case.name):
            story.once(case)
    for one in lasting:
        with _noting(failed, story, one.name):
            story.lasting(one, backlog=backlog, seconds=seconds, quiet_after_seconds=quiet_after_seconds)
    assert not failed, "\n".join(failed)
    return story.end(), story


@contextmanager
def _noting(failed: list[str], story: Story, name: str) -> Iterator[None]:
    """Note in which case an assertion failed, and go on: one may fail as others do."""
    try:
        yield
    except AssertionError as exc:
        failed.append(f"{name}: {exc}")
        story.here.sandbox.faults.clear()
        time.sleep(_MARGIN_SECONDS)
