"""What a new answer changes in the stored record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from worker.portability.changes import finding_of, merged, observed_change
from worker.portability.events import port_event_id
from worker.portability.records import AnsweredFrom, Finding, PortRecord, Status

START = datetime(2026, 1, 1, tzinfo=UTC)
OLD = PortRecord("13812345678", Status.NOT_PORTED, "CMCC", "CMCC", "湖北-宜昌", START)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def answer(status: Status, operator: str | None, at: int) -> PortRecord:
    holder = "CMCC" if operator else None
    return PortRecord(
        "13812345678", status, holder, operator, operator and "湖北-武汉", day(at), source="sandbox"
    )


def test_the_first_answer_is_stored_as_it_is() -> None:
    assert merged(None, OLD) == OLD
    assert observed_change(None, OLD, batch_id="b") is None


def test_a_new_operator_moves_changed_at_and_is_told() -> None:
    new = answer(Status.PORTED, "CTCC", 3)
    assert merged(OLD, new) == replace(new, changed_at=day(3))
    change = observed_change(OLD, new, batch_id="b")
    assert change is not None
    assert (change.msisdn, change.donor, change.recipient) == ("13812345678", "CMCC", "CTCC")
    assert (change.observed_after, change.observed_before) == (day(0), day(3))
    assert (change.doubtful, change.batch_id) == (False, "b")
    assert change.event_id == port_event_id("13812345678", day(3))


def test_the_same_operator_keeps_changed_at() -> None:
    stored = replace(OLD, changed_at=day(-9))
    assert merged(stored, answer(Status.NOT_PORTED, "CMCC", 3)).changed_at == day(-9)
    assert observed_change(stored, answer(Status.NOT_PORTED, "CMCC", 3), batch_id="b") is None


@pytest.mark.parametrize("status", [Status.UNKNOWN, Status.INVALID])
def test_an_answer_without_operator_keeps_the_last_one(status: Status) -> None:
    stored = replace(OLD, changed_at=day(-9))
    new = answer(status, None, 3)
    kept = merged(stored, new)
    assert kept == replace(stored, status=status, observed_at=day(3), source="sandbox")
    assert observed_change(stored, new, batch_id="b") is None
    # the port is seen when the number is found again
    assert observed_change(kept, answer(Status.PORTED, "CTCC", 4), batch_id="b") is not None
    assert finding_of(kept, AnsweredFrom.SHARED) == Finding(
        status=status, observed_at=day(3), answered_from=AnsweredFrom.SHARED
    )


@pytest.mark.parametrize("at", [-1, 0])
def test_a_late_answer_cannot_undo_a_newer(at: int) -> None:
    late = answer(Status.PORTED, "CTCC", at)
    assert merged(OLD, late) is OLD
    assert observed_change(OLD, late, batch_id="b") is None


@pytest.mark.parametrize(
    ("changed", "before", "after", "is_doubtful"),
    [
        (None, Status.NOT_PORTED, Status.PORTED, False),
        (0, Status.PORTED, Status.NOT_PORTED, True),
        (-110, Status.PORTED, Status.NOT_PORTED, False),
        (-109, Status.PORTED, Status.NOT_PORTED, True),
        (None, Status.VIRTUAL, Status.PORTED, True),
        (None, Status.NOT_PORTED, Status.VIRTUAL, True),
    ],
)
def test_a_change_against_the_regulators_rules_is_doubtful(changed, before, after, is_doubtful) -> None:
    old = replace(OLD, status=before, changed_at=None if changed is None else day(changed))
    change = observed_change(old, answer(after, "CTCC", 10), batch_id="b")
    assert change is not None
    assert change.doubtful is is_doubtful


def test_a_finding_says_what_the_record_says() -> None:
    assert finding_of(OLD, AnsweredFrom.STORED) == Finding(
        Status.NOT_PORTED, "CMCC", "CMCC", "湖北-宜昌", START, AnsweredFrom.STORED
    )


answers = st.lists(
    st.builds(
        lambda status, operator, at: answer(
            status, None if status in (Status.UNKNOWN, Status.INVALID) else operator, at
        ),
        st.sampled_from(Status),
        st.sampled_from(["CMCC", "CUCC", "CTCC"]),
        st.integers(1, 400),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda record: record.observed_at,
)


@given(answers)
def test_the_stored_record_tells_the_last_change(sequence: list[PortRecord]) -> None:
    stored: PortRecord | None = None
    changes = []
    for new in sequence:
        changes += [change] if (change := observed_change(stored, new, batch_id="b")) else []
        stored = merged(stored, new)
    assert stored is not None
    assert stored.observed_at == max(record.observed_at for record in sequence)
    assert stored.changed_at == (changes[-1].observed_before if changes else None)
    assert all(one.recipient == other.donor for one, other in pairwise(changes))
    assert [change.observed_before for change in changes] == sorted(c.observed_before for c in changes)
