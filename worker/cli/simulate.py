"""``presend simulate``: what lanes would do with traffic that nobody has sent yet."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import click

from worker.cli.screen import console, print_json, print_table

if TYPE_CHECKING:
    from worker.config import Settings
    from worker.simulation.outcome import LaneOutcome, Outcome
    from worker.simulation.scenario import Costs, LanePlan, Scenario

_BUSY = 0.8
_MOST_ITEMS = 50_000_000
_EPILOG = """\b
Examples:
  presend simulate --sms-rate 1000 --recharge-rate 50
  presend simulate --sms-rate 10000 --sms-workers 3 --sms-many 100 --seconds 120
  presend simulate --sms-rate 0 --recharge-rate 0 --sms-backlog 200000     how long to drain it
  presend simulate --latency 0.2,3 --tail 0.5                              a slow provider with a long tail

\b
Slots, linger, maximal ages, expiry and share wait are those of PRESEND_*, as the worker has them.
What is modelled, and where the costs are from: docs/scale.md
"""


class _Finite(click.FloatRange):
    """A range without the numbers that no simulation ends with."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is none: give a number, as 500", param, ctx)
        return number


@click.command("simulate", epilog=_EPILOG, short_help="Predict throughput, waits and look-ups.")
@click.option("--sms-rate", default=500.0, show_default=True, type=_Finite(min=0), help="Items a second.")
@click.option("--recharge-rate", default=50.0, show_default=True, type=_Finite(min=0), help="Items a second.")
@click.option("--seconds", default=60.0, show_default=True, type=_Finite(min=1), help="How long they come.")
@click.option("--sms-backlog", default=0, type=click.IntRange(min=0), help="Items that wait when it begins.")
@click.option(
    "--sms-many", default=1, show_default=True, type=click.IntRange(1, 1000), help="Items a message carries."
)
@click.option("--sms-workers", default=1, show_default=True, type=click.IntRange(1, 1000), help="Processes.")
@click.option(
    "--recharge-workers", default=1, show_default=True, type=click.IntRange(1, 1000), help="Processes."
)
@click.option("--sms-slots", type=click.IntRange(1, 64), help="In place of PRESEND_SMS_SLOTS.")
@click.option("--recharge-slots", type=click.IntRange(1, 64), help="In place of PRESEND_RECHARGE_SLOTS.")
@click.option("--sms-linger", type=_Finite(min=0), help="In place of PRESEND_SMS_LINGER_SECONDS.")
@click.option("--recharge-linger", type=_Finite(min=0), help="In place of PRESEND_RECHARGE_LINGER_SECONDS.")
@click.option(
    "--numbers",
    default=10_000_000,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many there are to be asked for; 0: each is asked for once.",
)
@click.option(
    "--zipf",
    default=0.5,
    show_default=True,
    type=_Finite(0, 3),
    help="How much more often some are: the n-th n**ZIPF times less than the first.",
)
@click.option(
    "--sms-asked-anew",
    default=0.93,
    show_default=True,
    type=_Finite(0, 1),
    help="Share of the numbers that failed on the operator their record names: it does not count for them.",
)
@click.option(
    "--latency",
    default="0.1,1.5",
    show_default=True,
    metavar="SINGLE[,BATCH]",
    help="The provider's seconds for one number and for 1000; both alike where only one is given.",
)
@click.option(
    "--tail",
    default=0.0,
    show_default=True,
    type=_Finite(0, 3),
    help="Sigma of a lognormal factor on that; 0: none.",
)
@click.option(
    "--cost",
    "costs",
    multiple=True,
    metavar="NAME=SECONDS",
    help="What work costs: message, item, batch (a worker's core), delivery, batch_wait, item_wait.",
)
@click.option("--seed", default=1, show_default=True, help="Same seed, same outcome.")
@click.option("--json", "as_json", is_flag=True, help="Print scenario and outcome; times in seconds.")
def simulate(*, as_json: bool, **options: Any) -> None:
    """Predict what lanes do: throughput, waits and look-ups.

    A simulation over the worker's own batching, in simulated time. Nothing has to run, nothing is sent.
    """
    from worker import config
    from worker.simulation.simulating import simulate as run

    scenario = _scenario(config.load(), options)
    begun = time.monotonic()
    outcome = run(scenario)
    if as_json:
        print_json({"scenario": asdict(scenario), "outcome": asdict(outcome)})
    else:
        _show(scenario, outcome, seconds=time.monotonic() - begun)


def _scenario(settings: Settings, options: dict[str, Any]) -> Scenario:
    from worker.portability.requests import Lane
    from worker.queues import prefetch
    from worker.simulation.scenario import Latency, Scenario

    recharge = replace(
        _plan(settings, Lane.RECHARGE, options),
        expiry_seconds=settings.recharge_expiry_seconds,
        share_wait_seconds=settings.recharge_share_wait_seconds,
    )
    sms = replace(
        _plan(settings, Lane.SMS, options),
        backlog=options["sms_backlog"],
        many=options["sms_many"],
        asked_anew=options["sms_asked_anew"],
    )
    lanes = {Lane.RECHARGE: recharge, Lane.SMS: sms}
    lanes = {lane: plan for lane, plan in lanes.items() if plan.rate or plan.backlog}
    if not lanes:
        raise click.UsageError("nothing is to be simulated: give a rate or a backlog, as --sms-rate 500")
    items = sum(plan.rate * options["seconds"] + plan.backlog for plan in lanes.values())
    if items > _MOST_ITEMS:
        raise click.UsageError(
            f"{items:,.0f} items would take {items / 1e6:,.0f} minutes or more, and at most {_MOST_ITEMS:,} "
            "are simulated: give fewer --seconds, or a smaller backlog"
        )
    single, batch = _latency(options["latency"])
    return Scenario(
        lanes,
        seconds=options["seconds"],
        numbers=options["numbers"],
        zipf=options["zipf"],
        latency=Latency(single, batch, options["tail"]),
        costs=_costs(options["costs"]),
        prefetch=prefetch(max(plan.slots for plan in (recharge, sms))),
        seed=options["seed"],
    )


def _plan(settings: Settings, lane: Any, options: dict[str, Any]) -> LanePlan:
    from worker.simulation.scenario import LanePlan

    slots, linger = options[f"{lane}_slots"], options[f"{lane}_linger"]
    return LanePlan(
        rate=options[f"{lane}_rate"],
        workers=options[f"{lane}_workers"],
        slots=settings.slots(lane) if slots is None else slots,
        linger_seconds=settings.linger_seconds(lane) if linger is None else linger,
        max_age_seconds=settings.max_age_seconds[lane],
    )


def _latency(text: str) -> tuple[float, float]:
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in {1, 2} or not all(0 <= seconds < float("inf") for seconds in parts):
        raise click.BadParameter(
            "give seconds for one number and for 1000, as 0.1,1.5", param_hint="--latency"
        )
    return parts[0], parts[-1]


def _costs(given: tuple[str, ...]) -> Costs:
    from worker.simulation.scenario import Costs

    names = [field.name for field in fields(Costs)]
    changed = {}
    for one in given:
        name, _, text = one.partition("=")
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if name not in names or not 0 <= seconds < float("inf"):
            raise click.BadParameter(
                f"{one!r}: give NAME=SECONDS with one of {', '.join(names)}, as item=0.0001",
                param_hint="--cost",
            )
        changed[name] = seconds
    return Costs(**changed)


def _show(scenario: Scenario, outcome: Outcome, *, seconds: float) -> None:
    from rich.table import Table

    screen = console()
    table = Table(box=None, pad_edge=True, title_justify="left")
    table.add_column("lane")
    for name in ("to come", "decided", "wait p50", "p99", "p99.9", "longest", "batch", "slots", "core"):
        table.add_column(name, justify="right")
    for lane, plan in scenario.lanes.items():
        one = outcome.lanes[lane.value]
        table.add_row(
            lane.value,
            f"{plan.rate:,.0f}/s" if plan.rate else f"{plan.backlog:,}",
            f"{one.throughput:,.0f}/s",
            *(_milliseconds(wait) for wait in (one.wait_p50, one.wait_p99, one.wait_p999, one.wait_max)),
            f"{one.batch:,.1f}",
            f"{one.slots_used:.0%}",
            f"{one.core_used:.0%}",
        )
    screen.print(
        f"\n {outcome.items:,} items in {outcome.seconds:,.0f} s, simulated in {seconds:.1f} s "
        f"(seed {scenario.seed})\n"
    )
    print_table(screen, table)
    screen.print(
        "\n to come: the rate asked for, of which chance makes a little more or less; wait: from sending\n"
        " to the confirmed event; batch: items, on average; slots, core: share in use\n"
    )
    for name, one in outcome.lanes.items():
        screen.print(f" {name:<10}{_verdict(one)}")
    screen.print(f" {'look-ups':<10}{_bought(outcome)}\n")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"


def _verdict(lane: LaneOutcome) -> str:
    """Whether a lane keeps up, and what to do if it does not."""
    if lane.keeps_up is None:
        return f"the backlog is drained after {lane.wait_max:,.1f} s; {_limit(lane)}"
    told = f"; {lane.expired:,} expired before they had an answer" if lane.expired else ""
    if lane.keeps_up:
        return f"keeps up{told}"
    return f"FALLS BEHIND: {lane.left:,} wait when the last has come; {_limit(lane)}{told}"


def _limit(lane: LaneOutcome) -> str:
    if lane.core_used > _BUSY:
        return "its processes' cores are the limit: more workers, or more items a message"
    if lane.slots_used > _BUSY:
        return "its slots are the limit: more slots, or more workers"
    return "no slot or core was short all the time"


def _bought(outcome: Outcome) -> str:
    most = max(1, outcome.fewest_look_ups)
    told = (
        f", {outcome.overtaken:,} of them by recharges that would not wait longer"
        if outcome.overtaken
        else ""
    )
    return (
        f"{outcome.look_ups:,} for {outcome.items:,} items, in {outcome.calls:,} calls{told}; "
        f"the fewest possible: {outcome.fewest_look_ups:,} ({outcome.look_ups / most:.3f})"
    )
