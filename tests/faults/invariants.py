"""What must hold after every run, whatever was killed when; one checker for all fault tests.

I1  each accepted item ends as exactly one ledger row or one dead letter, never both
I2  a key has one ledger row, decided as the decision table says; no call is left open, no number in flight
I3  a number is billed once; each further bill is listed in ``lookup_call`` (lost or overtaken), and a call is
    lost only to a fault of the run
I4  each ledger row and each change of operator has an event; an event's id follows from its key, and events
    of one id are byte-equal
I5  no phantom: nothing is decided, sent or bought that nobody asked for; records say what is true
I6  no batch is left unmarked in the outbox
I7  the queues are empty, the unacknowledged messages included
I8  no number and no key of the provider is in any log
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from tests.acceptance.traffic import Key
from tests.faults.evidence import Evidence
from tests.faults.traffic import is_billed
from worker.sandbox.subscribers import subscriber

_SHOWN = 5
_NAMESPACE = UUID("3c0018b3-c6df-577f-9140-4c3e5cc80e18")
_WITHOUT_ANSWER = {"expired", "provider_failing", "gate_closed", "budget_spent"}


class BrokenError(AssertionError):
    """At least one invariant does not hold; says which, how often, and shows examples."""


@dataclass
class Report:
    """What a run came to; the figures of its row in docs/reliability.md."""

    accepted: int = 0
    settled: int = 0
    lost: int = 0
    phantoms: int = 0
    # events received beyond the first of their id
    events_again: int = 0
    billed: int = 0
    # bills beyond a number's first: listed with a call that was lost or overtaken, and not listed
    billed_again_listed: int = 0
    billed_again_unlisted: int = 0
    # requests whose number was billed more than once
    keys_billed_again: int = 0
    lost_calls: int = 0
    # recharges told that there was no answer in time
    unanswered: int = 0
    # objections by invariant
    broken: dict[str, list[str]] = field(default_factory=dict)

    def object(self, invariant: str, what: str) -> None:
        self.broken.setdefault(invariant, []).append(what)

    def raise_if_broken(self) -> None:
        """Raise ``BrokenError`` with a readable list."""
        if self.broken:
            raise BrokenError(
                "\n".join(
                    f"{invariant}: {len(found)} × "
                    + "; ".join(found[:_SHOWN])
                    + ("; …" if len(found) > _SHOWN else "")
                    for invariant, found in sorted(self.broken.items())
                )
            )


def check(evidence: Evidence) -> Report:
    """Check every invariant; raises ``BrokenError``."""
    report = examine(evidence)
    report.raise_if_broken()
    return report


def examine(evidence: Evidence) -> Report:
    """Check every invariant and return the report, objections included."""
    report = Report()
    _settled_once(evidence, report)
    _decided_right(evidence, report)
    _billed_once(evidence, report)
    _told(evidence, report)
    _nothing_left(evidence, report)
    return report


def _key(row: dict[str, Any]) -> Key:
    return Key(row["lane"], row["source"], row["reference"], row["attempt"])


# -- I1, I5 -----------------------------------------------------------------------------------


def _settled_once(evidence: Evidence, report: Report) -> None:
    rows = Counter(_key(row) for row in evidence.ledger)
    letters = Counter(letter["tag"] for letter in evidence.letters)
    parked_keys = {key for tag in letters if (key := evidence.tags.get(tag)) is not None}
    accepted_keys = {key for tag in evidence.accepted if (key := evidence.tags[tag]) is not None}
    accepted_bad = {tag for tag in evidence.accepted if evidence.tags[tag] is None}
    report.accepted = len(accepted_keys) + len(accepted_bad)
    for key in accepted_keys - rows.keys() - parked_keys:
        report.lost += 1
        report.object("I1", f"lost: {key}")
    for tag in accepted_bad - letters.keys():
        report.lost += 1
        report.object("I1", f"lost: the bad item {tag}")
    report.settled = report.accepted - report.lost
    sent_as = defaultdict(set)
    for tag, key in evidence.tags.items():
        sent_as[key].add(tag)
    for key in rows.keys() & parked_keys:
        # of two messages with one key, one may be given up and the other decided after that
        if sent_as[key] <= letters.keys():
            report.object("I1", f"decided and parked: {key}")
    for tag, times in letters.items():
        if times > 1:
            report.object("I1", f"parked {times} times: {tag}")
    for key, times in rows.items():
        if times > 1:
            report.object("I2", f"{times} ledger rows: {key}")
    phantoms = [f"ledger row {key}" for key in rows if key not in evidence.answers]
    phantoms += [f"dead letter {tag}" for tag in letters if tag not in evidence.tags]
    report.phantoms += len(phantoms)
    for phantom in phantoms:
        report.object("I5", f"nobody asked for {phantom}")


# -- I2, I5 -----------------------------------------------------------------------------------


def _decided_right(evidence: Evidence, report: Report) -> None:
    for row in evidence.ledger:
        key = _key(row)
        answer = evidence.answers.get(key)
        if answer is None:
            continue
        if row["answered_from"] is None and key.lane == "recharge" and row["reason"] in _WITHOUT_ANSWER:
            report.unanswered += 1
            continue
        found = (row["decision"], row["reason"], row["target_operator"])
        if found != (answer.decision, answer.reason, answer.target_operator):
            report.object(
                "I2", f"{key} is {found}, not {(answer.decision, answer.reason, answer.target_operator)}"
            )
        if row["answered_from"] in {"live", "stored", "shared"}:
            number = evidence.numbers[key]
            if is_billed(number) and not evidence.bills[number]:
                report.object("I5", f"{key} has an answer that was never bought")
    for record in evidence.records:
        truth = subscriber(str(record["msisdn"]))
        if (record["status"], record["current_operator"]) != (truth.status.value, truth.current_operator):
            report.object(
                "I5", f"a record says {record['status']}, {record['current_operator']}, which is not true"
            )


# -- I3 ---------------------------------------------------------------------------------------


def _billed_once(evidence: Evidence, report: Report) -> None:
    listed: Counter[str] = Counter()
    for call in evidence.calls:
        again = [*(call["unanswered"] or ()), *(call["overtaken"] or ())]
        listed.update(str(msisdn) for msisdn in again)
        if call["outcome"] == "lost":
            report.lost_calls += 1
            _explained(evidence, call, report)
    asked_for = set(evidence.numbers.values())
    again_by_number = {}
    for number, times in evidence.bills.items():
        report.billed += times
        if number not in asked_for:
            report.phantoms += 1
            report.object("I5", "a number was bought that nobody asked for")
        if times > 1:
            again_by_number[number] = times
            covered = min(times - 1, listed[number])
            report.billed_again_listed += covered
            report.billed_again_unlisted += times - 1 - covered
            if times - 1 > covered:
                report.object("I3", f"a number billed {times} times, listed {listed[number]} times")
    report.keys_billed_again = sum(number in again_by_number for number in evidence.numbers.values())
    known = sum(call["billed"] or 0 for call in evidence.calls)
    unknown = sum(len(call["unanswered"] or ()) for call in evidence.calls)
    if not known <= report.billed <= known + unknown:
        report.object("I3", f"billed {report.billed}, but the calls say {known} to {known + unknown}")


def _explained(evidence: Evidence, call: dict[str, Any], report: Report) -> None:
    if evidence.faults is None:
        return
    if not any(begin <= call["until"] and call["sent_at"] <= end for begin, end in evidence.faults):
        report.object("I3", f"a call of {call['numbers']} numbers was lost to no fault of this run")


# -- I4, I5 -----------------------------------------------------------------------------------


def _told(evidence: Evidence, report: Report) -> None:
    digests: dict[str, set[str]] = defaultdict(set)
    for seen in evidence.events:
        digests[seen.id].add(seen.digest)
    report.events_again = len(evidence.events) - len(digests)
    for event_id, bodies in digests.items():
        if len(bodies) > 1:
            report.object("I4", f"{len(bodies)} different events of one id: {event_id}")
    wanted = {row["event_id"]: f"{row['lane']}.{row['decision']}" for row in evidence.ledger}
    wanted |= {change["event_id"]: "number.ported" for change in evidence.changes}
    for event_id, event_type in wanted.items():
        if event_id not in digests:
            report.object("I4", f"no event {event_type} {event_id}")
    for row in evidence.ledger:
        if row["event_id"] != expected_id(_key(row)):
            report.object("I4", f"the event id of {_key(row)} does not follow from its key")
    for event_id, event_type in {seen.id: seen.type for seen in evidence.events}.items():
        if wanted.get(event_id) != event_type:
            report.phantoms += 1
            report.object("I5", f"an event {event_type} {event_id} that no row stands behind")


def expected_id(key: Key) -> str:
    """An event's id, made from the design and not by the product."""
    written = json.dumps([key.source, key.lane, key.reference, key.attempt], separators=(",", ":"))
    return str(uuid5(_NAMESPACE, written))


# -- I2, I6, I7, I8 ---------------------------------------------------------------------------


def _nothing_left(evidence: Evidence, report: Report) -> None:
    for call in evidence.calls:
        if call["outcome"] == "calling":
            report.object("I2", f"a call of {call['numbers']} numbers is still open")
    if evidence.in_flight:
        report.object("I2", f"{evidence.in_flight} numbers are still in flight")
    if evidence.unmarked:
        report.object("I6", f"{evidence.unmarked} batches are unmarked")
    for queue, left in evidence.queued.items():
        report.object("I7", f"{left} messages are left in {queue}")
    for leak in evidence.leaks:
        report.object("I8", leak)
