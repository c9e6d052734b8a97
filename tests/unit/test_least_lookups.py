"""The benchmark's judge of look-ups sees what was bought for nobody, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.benchmarks.least import Call, Request, least

FIRST, SECOND = Call(10.0, 11.0, "CMCC"), Call(10.6, 11.4, "CMCC")
SMS = Request("sms", 1, "CMCC", received=9.0, decided=11.1, observed=10.0, failed=9.0)
RECHARGE = Request("recharge", 1, "CMCC", received=9.0, decided=11.1, observed=10.0)


@pytest.mark.parametrize(
    "later",
    [
        replace(SMS, received=10.5, decided=11.5, observed=10.6, failed=10.5),  # the first was in flight
        replace(
            SMS, received=12.0, decided=12.1, observed=10.6, failed=9.5
        ),  # it failed before either was asked
        replace(SMS, received=12.0, decided=12.1, observed=10.6, failed=12.0, operator="CUCC"),
        replace(RECHARGE, received=12.0, decided=12.1, observed=10.6),
    ],
)
def test_a_purchase_that_another_could_have_spared(later: Request) -> None:
    assert least([SMS, later], [FIRST, SECOND]) == 1


@pytest.mark.parametrize(
    "later",
    [
        replace(SMS, received=12.0, decided=14.0, observed=13.0, failed=12.0),  # evidence against the first
        replace(SMS, received=12.0, decided=14.0, observed=13.0, failed=9.5, says_ported=True),
        replace(RECHARGE, received=12.0, decided=14.0, observed=13.0, attempt=2),
        replace(RECHARGE, received=700.0, decided=14.0, observed=13.0),  # too old
    ],
)
def test_a_purchase_that_was_needed(later: Request) -> None:
    moment = later.received + 1
    call = Call(moment, moment + 0.5, "CMCC")
    assert least([SMS, replace(later, decided=moment + 1, observed=moment)], [FIRST, call]) == 2


def test_two_requests_that_shared_a_call_need_it_once() -> None:
    assert least([SMS, RECHARGE, replace(RECHARGE, attempt=2)], [FIRST]) == 1


def test_an_answer_that_nobody_gave_is_objected_to() -> None:
    with pytest.raises(AssertionError, match="from nowhere"):
        least([replace(RECHARGE, attempt=2, received=12.0, decided=13.0, observed=11.9)], [FIRST])
