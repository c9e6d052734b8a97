"""Whether ``presend simulate`` foretells what real processes do: both are given the same messages.

First what a worker's work costs here is measured, in bursts; with these costs, and nothing else from here,
the scenarios are simulated. Then each is played: messages sent at their moments, real workers over RabbitMQ,
a provider at the documented latency. Waits are from sending to the confirmed event, as Postgres has noted it.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tests.acceptance.harness import Place
from tests.benchmarks import costs, filling, sending
from tests.benchmarks.ground import Ground
from worker.config import Settings
from worker.portability.requests import Lane
from worker.queues import prefetch
from worker.simulation.outcome import quantile, rate
from worker.simulation.scenario import Costs, LanePlan, Scenario
from worker.simulation.simulating import simulate
from worker.simulation.traffic import Message, arrivals

_PORTED_EACH = 17
"""The provider's: for the others the record names the operator on which the sms failed."""
_NUMBERS_EACH = 20_000_000
_WARM_UP = 20


def _lane(lane: Lane, **plan: Any) -> LanePlan:
    """A lane as presend sets it up where it is told nothing."""
    settings = Settings.model_construct()
    made = LanePlan(
        slots=settings.slots(lane),
        linger_seconds=settings.linger_seconds(lane),
        max_age_seconds=settings.max_age_seconds[lane],
        **plan,
    )
    if lane is Lane.SMS:
        return made
    return replace(
        made,
        expiry_seconds=settings.recharge_expiry_seconds,
        share_wait_seconds=settings.recharge_share_wait_seconds,
    )


@dataclass(frozen=True)
class _Play:
    """A scenario and what it is called; its costs are measured before."""

    name: str
    lanes: Mapping[Lane, LanePlan]
    seconds: float = 30.0
    numbers: int = 0
    zipf: float = 0.0

    def scenario(self, measured: Costs, *, scale: float) -> Scenario:
        lanes = {
            lane: replace(plan, backlog=max(16_000 if plan.backlog else 0, round(plan.backlog * scale)))
            for lane, plan in self.lanes.items()
        }
        return Scenario(
            lanes,
            seconds=max(5.0, self.seconds * scale),
            numbers=self.numbers,
            zipf=self.zipf,
            costs=measured,
            prefetch=prefetch(max(plan.slots for plan in lanes.values())),
        )


PLAYS = (
    _Play("recharges one by one", {Lane.RECHARGE: _lane(Lane.RECHARGE, rate=20.0)}),
    _Play("sms, half of what the slots can do", {Lane.SMS: _lane(Lane.SMS, rate=600.0)}),
    _Play("a backlog of sms", {Lane.SMS: _lane(Lane.SMS, backlog=60_000)}),
    _Play(
        "both lanes, two sms workers, the same numbers again and again",
        {
            Lane.RECHARGE: _lane(Lane.RECHARGE, rate=20.0),
            Lane.SMS: _lane(Lane.SMS, rate=400.0, workers=2),
        },
        numbers=20_000,
        zipf=0.7,
    ),
)


@dataclass
class _Figures:
    """What was measured, or simulated, of a play."""

    look_ups: int
    # by lane: items a second, seconds
    lanes: dict[str, dict[str, float]] = field(default_factory=dict)


def run(ground: Ground) -> None:
    """Measure the costs, then play and simulate."""
    with ground.place_on_rabbitmq() as here:
        with _workers(here, [Lane.SMS], latency=0.0) as workers:
            measured = costs.measured(here, workers[0], scale=ground.scale)
        print(f"costs: {asdict(measured)}", flush=True)
        plays = [
            _compared(here, play, play.scenario(measured, scale=ground.scale), index)
            for index, play in enumerate(PLAYS)
        ]
        ground.write(
            {"scale": ground.scale, "costs": asdict(measured), "plays": plays},
            here.broker_url,
            here.database_url,
        )


def _compared(here: Place, play: _Play, scenario: Scenario, index: int) -> dict[str, Any]:
    """Play a scenario, simulate what was sent, and print the two beside each other."""
    traffic = {lane: list(arrivals(scenario, lane)) for lane in scenario.lanes}
    first = 13_000_000_000 + index * _NUMBERS_EACH
    for messages in traffic.values():
        for item in (item for message in messages for item in message.items):
            item.asked_anew = bool((first + item.msisdn) % _PORTED_EACH)
    for item in (item for message in traffic.get(Lane.RECHARGE, ()) for item in message.items):
        item.asked_anew = False
    found = _played(here, scenario, traffic, f"play{index}", first)
    foretold = _simulated(scenario, traffic)
    pairs = [
        (f"{lane} {name}", value, foretold.lanes[lane][name])
        for lane, figures in found.lanes.items()
        for name, value in figures.items()
    ]
    pairs.append(("look-ups", found.look_ups, foretold.look_ups))
    print(f"\n{play.name}\n  {'':32}{'measured':>12}{'simulated':>12}{'off by':>10}")
    rows = []
    for name, was, simulated in pairs:
        off = round(100 * (simulated / was - 1), 1) if was else 0.0
        print(f"  {name:32}{was:12,.3f}{simulated:12,.3f}{off:+9.1f}%")
        rows.append({"figure": name, "measured": was, "simulated": simulated, "off_percent": off})
    sys.stdout.flush()
    return {"name": play.name, "figures": rows}


def _played(
    here: Place, scenario: Scenario, traffic: Mapping[Lane, Sequence[Message]], prefix: str, first: int
) -> _Figures:
    """Send it and measure; notes in the messages when they were really sent."""
    ready = {
        lane: sending.singles(
            lane,
            f"{prefix}-{lane}",
            [str(first + message.items[0].msisdn) for message in messages],
            [message.sent_at for message in messages],
        )
        for lane, messages in traffic.items()
    }
    in_order = sorted(
        ((one, message) for lane in traffic for one, message in zip(ready[lane], traffic[lane], strict=True)),
        key=lambda pair: pair[0].at,
    )
    backlog = any(plan.backlog for plan in scenario.lanes.values())
    if backlog:
        filling.declare(here.broker_url)
        sending.send(here.broker_url, [one for one, _ in in_order])
    processes = [lane for lane, plan in scenario.lanes.items() for _ in range(plan.workers)]
    bought = _bought(here)
    since = time.time()
    with _workers(here, processes, latency=1.0, warm_up=None if backlog else f"warm{prefix}"):
        if not backlog:
            bought, since = _bought(here), time.time()
            sent = sending.send(here.broker_url, [one for one, _ in in_order])
            for (_, message), at in zip(in_order, sent, strict=True):
                message.sent_at = at - sent[0]
            begin = sent[0]
        rows = sending.told(here, prefix, len(in_order), since=since)
    if backlog:
        begin = min(row["received_at"] for row in rows)
    figures = _Figures(_bought(here) - bought)
    for lane, messages in traffic.items():
        told = [row for row in rows if row["lane"] == lane.value]
        sent_at = {
            f"{prefix}-{lane}-{index}": begin + message.sent_at for index, message in enumerate(messages)
        }
        waits = sorted(row["told_at"] - sent_at[row["reference"]] for row in told)
        figures.lanes[lane.value] = _figures(sorted(row["told_at"] - begin for row in told), waits)
    return figures


def _simulated(scenario: Scenario, traffic: Mapping[Lane, Sequence[Message]]) -> _Figures:
    outcome = simulate(scenario, traffic)
    return _Figures(
        outcome.look_ups,
        {
            lane: {"throughput": one.throughput, "wait_p50": one.wait_p50, "wait_p99": one.wait_p99}
            for lane, one in outcome.lanes.items()
        },
    )


def _figures(told_at: Sequence[float], waits: Sequence[float]) -> dict[str, float]:
    ordered = array("d", waits)
    return {
        "throughput": rate(array("d", told_at)),
        "wait_p50": quantile(ordered, 0.5),
        "wait_p99": quantile(ordered, 0.99),
    }


def _bought(here: Place) -> int:
    return int(here.rows("SELECT coalesce(sum(billed), 0)::int AS n FROM lookup_call")[0]["n"])


@contextmanager
def _workers(
    here: Place, lanes: Sequence[Lane], *, latency: float, warm_up: str | None = "warm"
) -> Iterator[list[Any]]:
    """Workers for these lanes beside a provider of this latency, each of them connected to everything."""
    provider = here.run(
        f"provider-{time.time_ns()}", [sys.executable, "-m", "tests.benchmarks.provider", str(latency)]
    )
    provider.wait_for(" ready")
    url = provider.log.split()[1]
    workers = [here.worker(lane.value, provider_url=url) for lane in lanes]
    try:
        if warm_up is not None:
            for number, lane in enumerate(dict.fromkeys(lanes)):
                numbers = [
                    str(13_600_000_000 + time.time_ns() // 1000 % 50_000_000 + each)
                    for each in range(_WARM_UP)
                ]
                moments = [0.02 * each for each in range(_WARM_UP)]
                since = time.time()
                sending.send(here.broker_url, sending.singles(lane, f"{warm_up}{number}", numbers, moments))
                sending.told(here, f"{warm_up}{number}", _WARM_UP, since=since)
        yield workers
    finally:
        for process in (*workers, provider):
            process.stop(seconds=120)
