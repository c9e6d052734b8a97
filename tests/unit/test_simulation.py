"""The simulation of lanes: what can be reckoned by hand, and what holds whatever comes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.cli import main
from worker.portability.freshness import Freshness
from worker.portability.records import PortRecord, Status
from worker.portability.requests import CheckRequest, Lane
from worker.simulation.agenda import Agenda
from worker.simulation.answers import accepted
from worker.simulation.core import Core
from worker.simulation.scenario import Costs, LanePlan, Latency, Scenario
from worker.simulation.simulating import simulate
from worker.simulation.traffic import Item, Message, arrivals

BEGIN = datetime(2026, 11, 24, tzinfo=UTC)
FREE = Costs(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def one_lane(lane: Lane = Lane.SMS, *, latency: float = 1.0, **plan: object) -> Scenario:
    """A lane whose work costs nothing, before a provider that always takes as long."""
    made = LanePlan(**plan)  # type: ignore[arg-type]
    return Scenario({lane: made}, numbers=0, latency=Latency(latency, latency), costs=FREE)


def sent(moments: Iterable[float], *, number: int | None = None, asked_anew: bool = False) -> list[Message]:
    """Messages of one item each, of different numbers where none is given."""
    messages = [Message(moment, left=1) for moment in moments]
    for index, message in enumerate(messages):
        message.items = [Item(message, number or 1 + index, asked_anew)]
    return messages


def test_a_lingering_lane_fills_batches_as_can_be_reckoned() -> None:
    # an item each 10 ms; a batch leaves when its oldest has waited 255 ms, so with 26 of them
    scenario = one_lane(linger_seconds=0.255, slots=64)
    lane = simulate(scenario, {Lane.SMS: sent(n * 0.01 for n in range(26 * 40))}).lanes["sms"]
    assert lane.batch == 26
    assert lane.wait_max == pytest.approx(1.255)
    assert lane.wait_mean == pytest.approx(1.0 + 0.255 - 0.125)
    assert lane.throughput == pytest.approx(100, rel=0.02)


def test_a_lane_without_linger_gathers_while_its_slots_are_taken() -> None:
    # one slot, calls of 0.98 s, 31 items from 0.05 s to 3.05 s: batches of 1, 9, 10, 10 and 1
    scenario = one_lane(Lane.RECHARGE, slots=1, latency=0.98)
    lane = simulate(scenario, {Lane.RECHARGE: sent(0.05 + n * 0.1 for n in range(31))}).lanes["recharge"]
    assert lane.batch == 31 / 5
    assert lane.wait_max == pytest.approx(0.05 + 3 * 0.98 - 1.05)
    assert lane.slots_used == pytest.approx(5 * 0.98 / (0.05 + 5 * 0.98))


def test_a_full_backlog_is_drained_at_what_the_slots_can_do() -> None:
    scenario = one_lane(slots=4, backlog=20_000, latency=2.0, linger_seconds=0.25)
    lane = simulate(replace(scenario, prefetch=5000)).lanes["sms"]
    assert lane.batch == 1000
    # full batches start a linger apart
    assert lane.wait_max == pytest.approx(20 / 4 * 2.0 + 3 * 0.25)
    assert lane.slots_used == pytest.approx(20 * 2.0 / (4 * lane.wait_max))
    assert lane.keeps_up is None


def test_a_worker_is_no_quicker_than_its_core() -> None:
    costs = replace(FREE, message=0.001, item=0.001)
    scenario = replace(one_lane(slots=8, rate=1000.0, latency=0.0), costs=costs, seconds=3)
    lane = simulate(scenario).lanes["sms"]
    assert lane.throughput == pytest.approx(500, rel=0.03)
    assert lane.core_used == pytest.approx(1.0, abs=0.01)
    assert lane.keeps_up is False
    twice = replace(scenario, lanes={Lane.SMS: replace(scenario.lanes[Lane.SMS], workers=3)})
    assert simulate(twice).lanes["sms"].keeps_up is True


def test_threads_take_a_core_in_equal_turns() -> None:
    agenda, ended = Agenda(), {}
    core = Core(agenda)
    core.work(3.0, lambda: ended.update(long=agenda.now))
    agenda.at(1.0, lambda: core.work(1.0, lambda: ended.update(short=agenda.now)))
    agenda.run()
    assert ended == {"short": pytest.approx(3.0), "long": pytest.approx(4.0)}
    assert core.busy_seconds == 4.0


def test_a_number_in_flight_is_shared_by_an_sms_and_overtaken_by_a_recharge() -> None:
    lanes = {
        Lane.SMS: LanePlan(workers=2, max_age_seconds=60),
        Lane.RECHARGE: LanePlan(max_age_seconds=60, share_wait_seconds=0.3),
    }
    scenario = Scenario(lanes, latency=Latency(1.0, 1.0), costs=FREE)
    late = {Lane.SMS: sent([0.0, 0.5], number=7, asked_anew=True), Lane.RECHARGE: sent([0.8], number=7)}
    shared = simulate(scenario, late)
    assert (shared.look_ups, shared.overtaken, shared.fewest_look_ups) == (1, 0, 1)
    assert shared.lanes["recharge"].wait_max == pytest.approx(0.2, abs=0.03)
    early = {Lane.SMS: sent([0.0], number=7), Lane.RECHARGE: sent([0.2], number=7)}
    overtaken = simulate(scenario, early)
    assert (overtaken.look_ups, overtaken.overtaken, overtaken.fewest_look_ups) == (2, 1, 1)
    assert overtaken.lanes["recharge"].wait_max == pytest.approx(1.3, abs=0.03)


def test_what_comes_at_once_is_bought_once() -> None:
    lanes = {Lane.SMS: LanePlan(backlog=3000, workers=2, linger_seconds=0.25, asked_anew=1.0)}
    outcome = simulate(Scenario(lanes, numbers=1000, zipf=0.7, costs=FREE))
    assert 500 < outcome.look_ups == outcome.fewest_look_ups < 1000


lane_plans = st.builds(
    LanePlan,
    rate=st.integers(0, 40),
    backlog=st.integers(0, 60),
    many=st.integers(1, 20),
    workers=st.integers(1, 3),
    slots=st.integers(1, 4),
    linger_seconds=st.sampled_from([0.0, 0.25]),
    max_age_seconds=st.sampled_from([0.0, 1.0, 600.0]),
    asked_anew=st.sampled_from([0.0, 0.9, 1.0]),
    expiry_seconds=st.none() | st.floats(0.05, 2),
    share_wait_seconds=st.none() | st.just(0.3),
)
scenarios = st.builds(
    Scenario,
    lanes=st.dictionaries(st.sampled_from([Lane.SMS, Lane.RECHARGE]), lane_plans, min_size=1),
    seconds=st.just(2.0),
    numbers=st.sampled_from([0, 1, 50, 100_000]),
    zipf=st.sampled_from([0.0, 0.7, 1.0, 1.6]),
    latency=st.builds(Latency, st.floats(0, 0.2), st.floats(0.2, 2), st.sampled_from([0.0, 0.8])),
    prefetch=st.integers(1, 400),
    seed=st.integers(0, 1000),
)


def test_a_slot_counts_until_the_last_is_decided_though_its_call_goes_on() -> None:
    lanes = {Lane.RECHARGE: LanePlan(backlog=1, slots=1, expiry_seconds=1.0)}
    lane = simulate(Scenario(lanes, latency=Latency(3.0, 3.0), costs=FREE)).lanes["recharge"]
    assert (lane.expired, lane.seconds) == (1, 1.0)
    assert lane.slots_used == pytest.approx(1.0)


@given(scenarios)
@settings(max_examples=40, deadline=None)
def test_every_item_is_decided_and_nothing_is_bought_that_no_rule_explains(scenario: Scenario) -> None:
    outcome = simulate(scenario)
    assert outcome.items == sum(lane.decided for lane in outcome.lanes.values())
    assert outcome.fewest_look_ups <= outcome.look_ups <= outcome.items
    assert outcome.calls <= outcome.look_ups
    for name, lane in outcome.lanes.items():
        plan = scenario.lanes[Lane(name)]
        assert 0 <= lane.slots_used <= 1 + 1e-9
        assert 0 <= lane.core_used <= 1 + 1e-9
        assert 0 <= lane.wait_p50 <= lane.wait_p99 <= lane.wait_p999 <= lane.wait_max
        assert plan.expiry_seconds is not None or not lane.expired
    assert simulate(scenario) == outcome


@given(scenarios, st.floats(0.01, 1.0))
@settings(max_examples=30, deadline=None)
def test_slots_are_taken_as_long_as_the_calls_last(scenario: Scenario, seconds: float) -> None:
    """The utilisation law: Little's, for slots."""
    lanes = {lane: replace(plan, expiry_seconds=None) for lane, plan in scenario.lanes.items()}
    scenario = replace(scenario, lanes=lanes, numbers=0, latency=Latency(seconds, seconds), costs=FREE)
    outcome = simulate(scenario)
    taken = sum(
        lane.slots_used * plan.slots * plan.workers * lane.seconds
        for lane, plan in zip(outcome.lanes.values(), scenario.lanes.values(), strict=True)
    )
    assert taken == pytest.approx(outcome.calls * seconds)


@pytest.mark.parametrize("zipf", [0.0, 0.7, 1.0, 1.6])
def test_numbers_come_as_often_as_zipf_has_it(zipf: float) -> None:
    scenario = Scenario({Lane.SMS: LanePlan(backlog=40_000, many=1000)}, numbers=20, zipf=zipf)
    came = Counter(item.msisdn for message in arrivals(scenario, Lane.SMS) for item in message.items)
    whole = sum(rank**-zipf for rank in range(1, 21))
    for rank in (1, 2, 3, 20):
        expected = 40_000 * rank**-zipf / whole
        assert came[rank] == pytest.approx(
            expected, abs=3 * expected**0.5
        )  # of a count, thrice its deviation


def test_other_seeds_other_traffic() -> None:
    scenario = Scenario({Lane.SMS: LanePlan(rate=50.0)}, seconds=5)
    assert simulate(scenario) == simulate(scenario)
    assert simulate(scenario) != simulate(replace(scenario, seed=2))


@given(
    lane=st.sampled_from([Lane.SMS, Lane.RECHARGE]),
    anew=st.booleans(),
    observed=st.integers(-700, 100),
    received=st.integers(-100, 100),
    shares_from=st.none() | st.integers(-50, 50),
    waited=st.integers(0, 100),
)
def test_a_stored_answer_does_where_the_real_rule_lets_it(
    *, lane: Lane, anew: bool, observed: int, received: int, shares_from: int | None, waited: int
) -> None:
    def at(seconds: int) -> datetime:
        return BEGIN + timedelta(seconds=seconds)

    shares_from = None if shares_from is None else min(shares_from, received)
    request = CheckRequest(
        lane,
        "r",
        "13900000001",
        at(received),
        operator="CMCC",
        attempt=2 if anew and lane is Lane.RECHARGE else 1,
    )
    named = "CMCC" if anew and lane is Lane.SMS else "CTCC"
    record = PortRecord("13900000001", Status.NOT_PORTED, named, named, None, at(observed))
    now = max(received + waited, observed)
    real = Freshness({lane: 600.0}).answered_from(
        request,
        record,
        failure_class=None,
        now=at(now),
        shares_from=at(received if shares_from is None else shares_from),
    )
    item = Item(Message(float(received)), 1, anew, float(received), shares_from)
    assert accepted(item, observed, now, 600.0) is (real is not None)


def test_the_command_says_who_falls_behind_and_why() -> None:
    shown = CliRunner().invoke(main, ["simulate", "--sms-rate", "900", "--sms-slots", "1", "--seconds", "5"])
    assert shown.exit_code == 0, shown.output
    assert "sms       FALLS BEHIND" in shown.output
    assert "recharge  keeps up" in shown.output
    assert "more slots" in shown.output


def test_the_command_prints_json_and_names_what_it_cannot_read() -> None:
    arguments = ["simulate", "--recharge-rate", "0", "--sms-backlog", "50", "--seconds", "1", "--json"]
    printed = json.loads(CliRunner().invoke(main, [*arguments, "--cost", "item=0.001"]).output)
    assert printed["scenario"]["costs"]["item"] == 0.001
    assert printed["outcome"]["lanes"]["sms"]["decided"] >= 50
    refused = CliRunner().invoke(main, [*arguments, "--cost", "itme=1"])
    assert refused.exit_code == 2
    assert "item_wait" in refused.output


@pytest.mark.parametrize("rate", ["inf", "nan"])
def test_a_rate_that_is_no_number_is_refused(rate: str) -> None:
    refused = CliRunner().invoke(main, ["simulate", "--sms-rate", rate])
    assert refused.exit_code == 2
    assert "give a number, as 500" in refused.output
