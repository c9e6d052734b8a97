"""Thousands of items of every kind through several workers: each is decided as the table says, once."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

from tests.acceptance.harness import Place
from tests.acceptance.oracle import Expected
from tests.acceptance.traffic import Key, Traffic, key_of, mixed
from tests.acceptance.waiting import eventually
from worker.sandbox.provider import Latency

SEED = 20261124

# no recharge may run out of patience here, on however slow a machine: the bill is to be exact
PATIENT = {"recharge_expiry_seconds": "300", "recharge_share_wait_seconds": "60"}


@pytest.mark.parametrize(
    ("layout", "latency", "items"),
    [
        pytest.param(("recharge,sms", "recharge,sms"), Latency(scale=0), 5000, id="two-workers"),
        pytest.param(
            ("recharge", "recharge", "sms", "sms"),
            Latency(0.01, 0.15),
            2500,
            id="two-workers-a-lane-slow-provider",
        ),
    ],
)
def test_everything_is_decided_once(
    here: Place, layout: tuple[str, ...], latency: Latency, items: int
) -> None:
    here.sandbox.latency = latency
    here.settings |= PATIENT
    traffic = mixed(SEED, items=items)
    half = len(traffic.messages) // 2
    sent = send(here, traffic, 0, half)
    for lanes in layout:
        here.worker(*lanes.split(","), ready=False)
    sent |= send(here, traffic, half, len(traffic.messages))

    wanted = (len(traffic.expected), traffic.letters)
    eventually(
        lambda: (
            (here.count("check_request"), here.count("dead_letter")) >= wanted
            and here.count("dead_letter") >= wanted[1]
        ),
        f"{wanted} decided keys and dead letters",
        seconds=90,
        each_seconds=0.2,
    )
    check_results(traffic, sent, here)
    here.stop()

    check_ledger(here, traffic)
    check_letters(here, traffic)
    here.check_events()
    check_event_data(here)
    check_bill(here, traffic)
    assert not here.unfinished()


def send(here: Place, traffic: Traffic, first: int, last: int) -> dict[int, Any]:
    """Send these messages; their results' handles by position."""
    return {
        position: here.send(traffic.messages[position].task, **traffic.messages[position].arguments)
        for position in range(first, last)
    }


def check_ledger(here: Place, traffic: Traffic) -> None:
    """One row a key, and each says what the table says."""
    rows = here.ledger()
    found = {row_key(row): row for row in rows}
    assert len(found) == len(rows)
    assert found.keys() == traffic.expected.keys()
    wrong = [
        (key, row, traffic.expected[key])
        for key, row in found.items()
        if not fits(row, traffic.expected[key])
    ]
    assert not wrong, f"{len(wrong)} rows differ from the table, such as {wrong[:3]}"


def fits(row: dict[str, Any], allowed: list[tuple[str | None, Expected]]) -> bool:
    """Whether a row is what one of the key's requests must become."""
    return any(
        row["asked_operator"] == operator
        and (row["answered_from"] == "rule") == want.by_rule
        and all(
            row[name] == getattr(want, name)
            for name in (
                "decision", "reason", "target_operator", "status", "range_holder", "current_operator", "area"
            )
        )
        for operator, want in allowed
    )  # fmt: skip


def check_letters(here: Place, traffic: Traffic) -> None:
    """One dead letter an item that cannot be taken, with words that say why; one a conflict."""
    letters = here.rows("SELECT task, payload, reason, queue FROM dead_letter")
    by_tag = defaultdict(list)
    for letter in letters:
        by_tag[letter["payload"]["x_tag"]].append(letter)
    assert all(len(of_tag) == 1 for of_tag in by_tag.values())

    for item in traffic.items:
        if item.rejected is not None:
            (letter,) = by_tag.pop(item.tag)
            assert letter["payload"] == item.arguments
            assert item.rejected in letter["reason"], (item, letter["reason"])
            assert letter["queue"] == item.lane
    for message in traffic.messages:
        if message.whole is not None:
            (letter,) = by_tag.pop(message.arguments["x_tag"])
            assert message.whole in letter["reason"]
            assert letter["task"] == message.task

    # what is left are the conflicts: of each key, one
    keys = {item.tag: key_of(item) for item in traffic.items if item.rejected is None}
    lost = Counter(keys[tag] for tag in by_tag)
    assert all("was used before" in of_tag[0]["reason"] for of_tag in by_tag.values())
    assert lost == Counter(traffic.conflicts)


def check_event_data(here: Place) -> None:
    """An event says what its ledger row says."""
    events = {event_id: events[0] for event_id, events in here.events.by_id().items()}
    for row in here.ledger():
        event = events[str(row["event_id"])]
        data = event["data"]
        assert event["type"] == f"{row['lane']}.{row['decision']}"
        assert event["source"] == f"presend/{row['lane']}"
        assert event["subject"] == data["reference"] == row["reference"]
        assert event["specversion"] == "1.0"
        assert event["dataschema"] == "urn:presend:event:1"
        assert event["time"].endswith("Z")
        assert data["mobile"] == (None if row["msisdn"] is None else str(row["msisdn"]))
        assert data["batch_id"] == str(row["batch_id"])
        for name in (
            "lane", "source", "attempt", "decision", "reason", "status", "area", "range_holder",
            "current_operator", "target_operator", "answered_from",
        ):  # fmt: skip
            assert data[name] == row[name], name


def check_bill(here: Place, traffic: Traffic) -> None:
    """Every number that needed asking was bought once, no other was bought, no batch was too large."""
    bills = here.sandbox.bills()
    again = {number: times for number, times in bills.items() if times > 1}
    assert not again, f"{len(again)} numbers were billed more than once: {requests_for(again, here, traffic)}"
    assert bills.keys() == traffic.to_be_billed
    assert 1 < here.sandbox.largest() <= 1000
    assert all(len(set(call.mobiles)) == len(call.mobiles) for call in here.sandbox.asked)
    # the accounts agree
    (row,) = here.rows(
        "SELECT sum(billed) AS billed, sum(numbers) AS numbers, count(*) AS calls FROM lookup_call"
    )
    assert row["billed"] == here.sandbox.bill.billed
    assert row["calls"] == len(here.sandbox.asked)
    assert row["numbers"] == sum(len(call.mobiles) for call in here.sandbox.asked)
    assert not here.rows("SELECT * FROM lookup_call WHERE outcome <> 'answered'")
    live = Counter(
        row["msisdn"]
        for row in here.ledger()
        if row["answered_from"] == "live" and row["status"] != "invalid"
    )
    assert max(live.values()) == 1


def requests_for(numbers: dict[str, int], here: Place, traffic: Traffic) -> list[Any]:
    """The requests for some numbers, how often each was sent, and how they were answered."""
    sent = Counter(key_of(item) for item in traffic.items if item.rejected is None)
    rows = here.rows(
        "SELECT * FROM check_request WHERE msisdn = ANY(%s)", [int(number) for number in numbers]
    )
    return [
        (
            sent[row_key(row)],
            row["status"],
            row["answered_from"],
            str(row["received_at"]),
            str(row["observed_at"]),
            row_key(row),
        )
        for row in rows
    ]


def check_results(traffic: Traffic, sent: dict[int, Any], here: Place) -> None:
    """A producer reads the results of its messages, single and many, good and bad."""
    rows = {row_key(row): row for row in here.ledger()}
    seen: Counter[str] = Counter()
    for position, handle in sent.items():
        message = traffic.messages[position]
        bad = message.whole or any(item.rejected for item in message.items[:1])
        kind = f"{message.task} {'bad' if bad else 'good'}"
        if seen[kind] >= 8 or any(
            key_of(item) in traffic.conflicts for item in message.items if not item.rejected
        ):
            continue
        seen[kind] += 1
        if message.task.endswith("_many") and message.whole is None:
            values = handle.get(timeout=10)
            assert len(values) == len(message.items)
            for item, value in zip(message.items, values, strict=True):
                if item.rejected is None:
                    assert value["decision"] == rows[key_of(item)]["decision"]
                    assert value["reference"] == key_of(item).reference
                else:
                    assert item.rejected in value["rejected"]
        elif kind.endswith("good"):
            value = handle.get(timeout=10)
            row = rows[key_of(message.items[0])]
            assert (value["decision"], value["reason"]) == (row["decision"], row["reason"])
            assert value["mobile"] == (None if row["msisdn"] is None else str(row["msisdn"]))
        else:
            with pytest.raises(Exception, match=r".") as raised:
                handle.get(timeout=10)
            assert type(raised.value).__name__ == "Rejected"
            assert handle.state == "FAILURE"
            words = message.whole or message.items[0].rejected
            assert words is not None
            assert words in str(raised.value)
    assert len(seen) == 8


def row_key(row: dict[str, Any]) -> Key:
    """A ledger row's key."""
    return Key(row["lane"], row["source"], row["reference"], row["attempt"])
