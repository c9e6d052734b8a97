"""The ledger beside the balance: what is put down to what, and what a call's time blurs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from worker.portability.reconciliation import Audit, Gap, LedgerCall, Reading, reconcile

BEGAN = datetime(2026, 11, 28, 8, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def read(seconds: float, balance: int) -> Reading:
    return Reading(at(seconds), at(seconds + 0.1), balance)


def call(
    seconds: float, numbers: int, *, took: float | None = 1.0, billed: int | None = None, lost: int = 0,
    failed: bool = False,
) -> LedgerCall:  # fmt: skip
    ended = None if took is None else at(seconds + took)
    cost = 0 if failed or lost else numbers
    return LedgerCall(
        f"c{seconds}", at(seconds), ended, numbers, cost if billed is None else billed, lost, failed
    )


def audited(readings: list[Reading], *calls: LedgerCall) -> Audit:
    found = reconcile(readings, calls)
    assert found is not None
    return found


def gaps(audit: Audit) -> list[tuple[Gap, int]]:
    return [(each.gap, each.numbers) for each in audit.findings]


def test_what_the_answers_cost_is_no_gap() -> None:
    found = audited([read(0, 100), read(10, 90), read(20, 90), read(30, 85)], call(5, 10), call(25, 5))
    assert (found.findings, found.billed, found.fell, found.spans, found.unsettled) == ((), 15, 15, 3, None)


def test_each_gap_is_put_down_to_what_may_have_caused_it() -> None:
    assert gaps(audited([read(0, 1000), read(10, 993)], call(5, 0))) == [(Gap.OVERCHARGED, 7)]
    lost = call(3, 20, lost=20)
    assert gaps(audited([read(0, 1000), read(10, 985)], lost)) == [(Gap.LOST_CHARGED, 15)]
    assert gaps(audited([read(0, 1000), read(10, 1000)], lost)) == []
    failed = [call(2, 300, failed=True), call(5, 1, failed=True)]
    found = audited([read(0, 1000), read(10, 992)], *failed)
    assert gaps(found) == [(Gap.FAILURE_CHARGED, 1), (Gap.OVERCHARGED, 7)]
    assert found.findings[0].calls == (failed[1],)
    assert found.unexplained == 8
    both = audited([read(0, 1000), read(10, 679)], lost, *failed)
    assert gaps(both) == [(Gap.LOST_CHARGED, 20), (Gap.FAILURE_CHARGED, 301)]


def test_a_balance_that_rises_was_topped_up() -> None:
    found = audited([read(0, 10), read(10, 1005)], call(5, 5))
    assert gaps(found) == [(Gap.TOPPED_UP, 1000)]
    assert (found.fell, found.unexplained) == (5, 0)
    assert gaps(audited([read(0, 10), read(10, 8)], call(5, 5))) == [(Gap.UNDERCHARGED, 3)]


def test_spans_are_joined_while_a_call_is_open_at_a_reading() -> None:
    """The call was charged before the reading, its answer came after: neither span alone would add up."""
    readings = [read(0, 100), read(10, 90), read(20, 90)]
    assert gaps(audited(readings, call(9, 10, took=3))) == []
    found = audited([*readings, read(30, 80)], call(9, 10, took=3))
    assert [(each.gap, each.numbers, each.since) for each in found.findings] == [
        (Gap.OVERCHARGED, 10, at(20))
    ]


def test_clocks_may_differ_a_little() -> None:
    """The call's end lies before the reading by one clock, and was charged after it by another."""
    assert gaps(audited([read(0, 100), read(10, 100), read(20, 90)], call(8, 10, took=1.7))) == []


def test_calls_that_never_pause_are_judged_beyond_doubt_only() -> None:
    never = [call(-1, 50, took=4), call(8, 50, took=4), call(19, 50, took=None)]
    within = audited([read(0, 1000), read(10, 940), read(20, 900)], *never)
    assert (within.spans, within.findings) == (0, ())
    assert within.unsettled is not None
    assert (within.unsettled.fell, within.unsettled.billed, within.unsettled.unsure) == (100, 100, 100)
    beyond = audited([read(0, 1000), read(10, 940), read(20, 700)], *never)
    assert gaps(beyond) == [(Gap.OVERCHARGED, 100)]


def test_what_was_left_out_is_named_with_its_calls() -> None:
    """It begins in the middle of a call, so neither its charge nor its answer can be placed."""
    calls = [call(-1, 50, took=4), call(5, 10), call(8, 10), call(15, 7)]
    found = audited([read(0, 1000), read(10, 930), read(20, 923)], *calls)
    assert (found.spans, found.calls, found.compared, found.findings) == (1, 1, (at(10), at(20.1)), ())
    assert found.left_out is not None
    assert (found.left_out.since, found.left_out.until) == (at(0), at(10.1))
    assert (found.left_out.calls, found.left_out.fell, found.left_out.billed) == (2, 70, 20)
    beyond = audited([read(0, 1000), read(10, 900), read(20, 893)], *calls)
    assert gaps(beyond) == [(Gap.OVERCHARGED, 30)]
    nothing = audited([read(0, 1000), read(10, 930)], *calls[:3])
    assert (nothing.compared, nothing.spans, nothing.unsettled) == (None, 0, None)


def test_one_reading_compares_nothing() -> None:
    assert reconcile([read(0, 1)], []) is None
