"""The checker objects: to doctored evidence for every invariant, each time to the very thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.acceptance.traffic import Key
from tests.faults.evidence import Evidence, Seen
from tests.faults.invariants import BrokenError, check, examine, expected_id
from tests.faults.traffic import Item, Plan, is_billed
from worker.portability import events
from worker.portability.requests import Lane, RequestKey
from worker.sandbox.subscribers import subscriber

PLAN = Plan.of(seed=5, messages=300)
KILL = (1000.0, 1002.0)


def _ideal() -> Evidence:
    """What a run without any fault leaves behind."""
    items: dict[Key, Item] = {
        item.key: item for m in PLAN.messages for item in m.items if item.key is not None
    }
    ledger = []
    bills: Counter[str] = Counter()
    for key, item in items.items():
        assert item.answer
        asked = not item.answer.by_rule
        ledger.append(
            {
                **key._asdict(),
                "msisdn": int(item.number or 0),
                "decision": item.answer.decision,
                "reason": item.answer.reason,
                "target_operator": item.answer.target_operator,
                "answered_from": "live" if asked else "rule",
                "event_id": expected_id(key),
            }
        )
        if asked and item.number and is_billed(item.number):
            bills[item.number] = 1
    return Evidence(
        answers=PLAN.answers,
        numbers=PLAN.numbers,
        tags=PLAN.tags,
        accepted=set(PLAN.tags),
        bills=bills,
        events=[
            Seen(row["event_id"], f"{row['lane']}.{row['decision']}", "digest", _key(row)) for row in ledger
        ],
        ledger=ledger,
        letters=[{"tag": tag} for tag, key in PLAN.tags.items() if key is None],
        calls=[_call("answered", billed=bills.total())],
        records=[_record(number) for number in bills],
        faults=[KILL],
    )


def test_an_ideal_run_holds() -> None:
    evidence = _ideal()
    report = check(evidence)
    assert report.accepted == report.settled == len(PLAN.answers) + len(evidence.letters)
    assert (report.lost, report.phantoms, report.events_again, report.billed_again_listed) == (0, 0, 0, 0)


def test_a_second_bill_that_is_listed_holds() -> None:
    evidence = _ideal()
    number = _billed(evidence)
    evidence.bills[number] += 1
    evidence.calls.append(_call("lost", sent_at=KILL[0] - 1, unanswered=[int(number)]))
    evidence.events.append(evidence.events[0])
    report = check(evidence)
    assert (report.billed_again_listed, report.billed_again_unlisted, report.events_again) == (1, 0, 1)


def _lose_a_row(evidence: Evidence) -> None:
    row = evidence.ledger.pop()
    evidence.events = [seen for seen in evidence.events if seen.id != row["event_id"]]


def _park_what_was_decided(evidence: Evidence) -> None:
    evidence.letters.append({"tag": next(tag for tag, key in PLAN.tags.items() if key is not None)})


def _two_rows(evidence: Evidence) -> None:
    evidence.ledger.append(evidence.ledger[0])


def _wrong_decision(evidence: Evidence) -> None:
    evidence.ledger[0] = evidence.ledger[0] | {"reason": "another"}


def _bill_again(evidence: Evidence, **call: Any) -> None:
    number = _billed(evidence)
    evidence.bills[number] += 1
    evidence.calls.append(_call(**call, unanswered=[int(number)]) if call else _call("answered", billed=1))


def _lose_a_call_to_nothing(evidence: Evidence) -> None:
    evidence.calls.append(_call("lost", sent_at=KILL[1] + 1, unanswered=[int(_billed(evidence))]))


def _count_wrong(evidence: Evidence) -> None:
    evidence.calls[0]["billed"] += 1


def _never_buy(evidence: Evidence) -> None:
    number = _billed(evidence)
    del evidence.bills[number]
    evidence.calls[0]["billed"] -= 1


def _buy_for_nobody(evidence: Evidence) -> None:
    evidence.bills["13900000000"] += 1
    evidence.calls[0]["billed"] += 1


def _change(field: str, **to: Any) -> Callable[[Evidence], None]:
    def doctor(evidence: Evidence) -> None:
        listed = getattr(evidence, field)
        one = listed[0]
        listed.append(one | to if isinstance(one, dict) else replace(one, **to))

    return doctor


def _forget_an_event(evidence: Evidence) -> None:
    evidence.events.pop()


def _make_up_an_id(evidence: Evidence) -> None:
    evidence.ledger[0] = evidence.ledger[0] | {"event_id": "made-up"}
    evidence.events[0] = replace(evidence.events[0], id="made-up")


def _lie(evidence: Evidence) -> None:
    evidence.records[0] = evidence.records[0] | {"current_operator": "nobody"}


def _leave(**left: Any) -> Callable[[Evidence], None]:
    def doctor(evidence: Evidence) -> None:
        for name, value in left.items():
            setattr(evidence, name, value)

    return doctor


@pytest.mark.parametrize(
    ("invariant", "words", "doctor"),
    [
        ("I1", "lost: Key", _lose_a_row),
        ("I1", "lost: the bad item", lambda evidence: evidence.letters.pop()),
        ("I1", "decided and parked", _park_what_was_decided),
        ("I1", "parked 2 times", _change("letters")),
        ("I2", "2 ledger rows", _two_rows),
        ("I2", "'another'", _wrong_decision),
        ("I2", "still open", _change("calls", outcome="calling", billed=None)),
        ("I2", "still in flight", _leave(in_flight=3)),
        ("I3", "billed 2 times, listed 0", _bill_again),
        ("I3", "lost to no fault", _lose_a_call_to_nothing),
        ("I3", "but the calls say", _count_wrong),
        ("I4", "no event", _forget_an_event),
        ("I4", "different events of one id", _change("events", digest="another")),
        ("I4", "does not follow", _make_up_an_id),
        ("I5", "nobody asked for ledger row", _change("ledger", reference="unheard-of", event_id="e")),
        ("I5", "nobody asked for dead letter", _change("letters", tag="unheard-of")),
        ("I5", "no row stands behind", _change("events", id="unheard-of")),
        ("I5", "never bought", _never_buy),
        ("I5", "a number was bought that nobody asked for", _buy_for_nobody),
        ("I5", "which is not true", _lie),
        ("I6", "unmarked", _leave(unmarked=1)),
        ("I7", "left in sms", _leave(queued={"sms": 1})),
        ("I8", "a number", _leave(leaks=["worker.log: a number"])),
    ],
)
def test_it_objects(invariant: str, words: str, doctor: Callable[[Evidence], None]) -> None:
    evidence = _ideal()
    doctor(evidence)
    report = examine(evidence)
    assert any(words in objection for objection in report.broken[invariant]), report.broken
    with pytest.raises(BrokenError, match=words):
        check(evidence)


def test_its_event_ids_are_the_products() -> None:
    key = RequestKey("shop1", Lane.SMS, "A-1:x", 2)
    assert expected_id(Key("sms", "shop1", "A-1:x", 2)) == events.event_id(key)


def _key(row: dict[str, Any]) -> Key:
    return Key(row["lane"], row["source"], row["reference"], row["attempt"])


def _billed(evidence: Evidence) -> str:
    return next(iter(evidence.bills))


def _record(number: str) -> dict[str, Any]:
    truth = subscriber(number)
    return {"msisdn": int(number), "status": truth.status.value, "current_operator": truth.current_operator}


def _call(outcome: str, *, sent_at: float = 0.0, billed: int | None = None, **more: Any) -> dict[str, Any]:
    defaults = {"numbers": 1, "unanswered": None, "overtaken": None}
    return {
        "outcome": outcome,
        "billed": billed,
        "sent_at": sent_at,
        "until": sent_at + 8,
        **defaults,
        **more,
    }
