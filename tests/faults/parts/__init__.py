"""The parts of ``make faults``: each is one story, in a module that tells it at any size."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from tests import browser
from tests.acceptance.harness import Place
from tests.acceptance.provider import WatchedSandbox
from tests.faults import points as crash_points
from tests.faults.ground import Ground
from tests.faults.invariants import BrokenError, Report
from tests.faults.misbehaviours import LASTING, ONCE
from tests.faults.outcome import Outcome, versions
from tests.faults.parts import (
    alerts,
    controls,
    cuts,
    kills,
    malformed,
    misbehaviours,
    outages,
    points,
    prepaid,
    query_page,
    simulation,
    soak,
)
from tests.faults.prometheus import FASTER
from tests.faults.scene import Scene
from tests.faults.tracing import recoveries
from worker.sandbox.provider import Latency
from worker.sandbox.serving import serving

_RECHARGES_WAIT = {"recharge_expiry_seconds": "60"}
"""A recharge waits longer than a restart takes, so that it is bought, not told that nobody answered."""


@dataclass(frozen=True)
class Part:
    """One part."""

    # at full size, about
    minutes: int
    run: Callable[[Ground], Outcome]


def _kills_rabbitmq(ground: Ground) -> Outcome:
    messages, times = ground.sized(200_000), ground.sized(100)
    with ground.on_rabbitmq(settings=_RECHARGES_WAIT, latency=0.5) as scene:
        report = kills.run(scene, messages=messages, kills=times, seconds=900 * ground.scale)
        return _killed(scene, "kill -9 of a worker, at random", messages, report)


def _kills_redis(ground: Ground) -> Outcome:
    messages, times = ground.sized(50_000), ground.sized(50)
    with ground.on_redis(settings=_RECHARGES_WAIT, latency=0.5) as scene:
        report = kills.run(scene, messages=messages, kills=times, seconds=450 * ground.scale)
        return _killed(scene, "kill -9 of a worker, at random", messages, report)


def _crash_points(ground: Ground) -> Outcome:
    times = ground.sized(20)
    with ground.on_rabbitmq(settings=_RECHARGES_WAIT, latency=0.5) as scene:
        report = points.run(scene, times=times, per_second=200, seconds=1100)
        named = len(crash_points.on("rabbitmq"))
        found = _killed(scene, f"kill -9 at each of {named} crash points", len(scene.confirmed()), report)
        return replace(found, recoveries=())  # one kill comes before the last one's work is done


def _controls(ground: Ground) -> Outcome:
    """Every arm is a run that must fail; the row's figures are those of one more with all guards on."""
    for number, (guard, arm) in enumerate(controls.ARMS.items()):
        inside = replace(ground, folder=ground.folder / f"without-{number}")
        with inside.on_rabbitmq(settings=_RECHARGES_WAIT, latency=0.5) as scene:
            objection = _objection(scene, guard)
            assert re.search(arm.objection, objection), f"without {guard}: {objection or 'no objection'}"
    with ground.on_rabbitmq(settings=_RECHARGES_WAIT, latency=0.5) as scene:
        report = controls.run(scene, None)
        fault = f"control arms: {', '.join(controls.ARMS)} switched off, each objected to"
        return _killed(scene, fault, len(scene.confirmed()), report)


def _objection(scene: Scene, guard: str) -> str:
    try:
        controls.run(scene, guard)
    except BrokenError as objection:
        return str(objection)
    return ""


def _cuts(ground: Ground) -> Outcome:
    times = ground.sized(30)
    with ground.on_rabbitmq(settings=_RECHARGES_WAIT, latency=0.5) as scene:
        report, found = cuts.run(scene, times=times, per_second=150)
        fault = "connections to RabbitMQ, PostgreSQL and Redis reset, reset in mid-answer, refused"
        return _away(scene, fault, report, found)


def _soak(ground: Ground) -> Outcome:
    seconds = float(os.environ.get("SOAK_SECONDS") or 3600 * ground.scale)
    with ground.on_rabbitmq(settings=_RECHARGES_WAIT, latency=0.5) as scene:
        soaked = soak.run(scene, seconds=seconds, per_second=50)
        slopes, course = soaked.slopes(), soaked.course()
        if ground.scale == 1:  # in minutes no slope is known well enough
            grown = soak.grown(slopes)
            assert not grown, f"what grew: {grown}; in twelfths of the run: {course}"
        return Outcome(
            f"all connections closed every {soak.CLOSED_EACH_SECONDS:.0f} s for {seconds / 60:.0f} min",
            soaked.closed,
            len(scene.confirmed()),
            soaked.report,
            more={
                "slopes": {name: str(each) for name, each in slopes.items()},
                "bounds_an_hour": soak.BOUNDS,
                "means_in_twelfths": course,
            },
            versions=versions(scene.broker_url, scene.redis_url, scene.database_url),
        )


def _services(ground: Ground) -> Outcome:
    times = ground.sized(10)
    with ground.on_own_engines(settings=_RECHARGES_WAIT, latency=0.5) as (scene, engines):
        report, found = outages.run(scene, engines, times=times, per_second=100)
        fault = "kill -9 and restart of RabbitMQ, PostgreSQL and Redis in turn"
        return _away(scene, fault, report, found)


def _away(scene: Scene, fault: str, report: Report, found: Sequence[outages.Outage]) -> Outcome:
    slowest = max(found, key=lambda outage: outage.resumed_seconds)
    assert slowest.resumed_seconds <= outages.RESUMED_SECONDS, f"consumption resumed too late: {slowest}"
    return Outcome(
        fault,
        len(found),
        len(scene.confirmed()),
        report,
        [outage.resumed_seconds for outage in found],
        {"outages": [asdict(outage) for outage in found]},
        versions(scene.broker_url, scene.redis_url, scene.database_url),
    )


def _killed(scene: Scene, fault: str, messages: int, report: Report) -> Outcome:
    found = recoveries(scene.folder / "traces", scene.all_kills())
    last = max((one.last for one in found), default=0.0)
    return Outcome(
        fault,
        len(scene.all_kills()),
        messages,
        report,
        [one.first for one in found],
        {"kills_of_a_worker_that_held_something": len(found), "worst_until_all_was_settled": round(last, 2)},
        versions(scene.broker_url, scene.redis_url, scene.database_url),
    )


def _misbehaviours(ground: Ground) -> Outcome:
    with ground.place_on_rabbitmq() as here:
        once, lasting = ONCE[: ground.sized(len(ONCE))], LASTING[: ground.sized(len(LASTING))]
        report, story = misbehaviours.run(
            here, once, lasting, backlog=1500, seconds=25, quiet_after_seconds=10
        )
        return Outcome(
            f"a provider that misbehaves: {len(once)} faults for a batch of 1000, "
            f"{len(lasting)} that last 25 s",
            len(once) + len(lasting),
            len(story.tags) + len(story.at_fault),
            report,
            story.recoveries,
            {"recovery": "until all that waited was decided", "calls": len(here.sandbox.arrived)},
            versions(here.broker_url, here.redis_url, here.database_url),
        )


def _malformed_rabbitmq(ground: Ground) -> Outcome:
    with ground.place_on_rabbitmq() as here:
        return _malformed(ground, here)


def _malformed_redis(ground: Ground) -> Outcome:
    with ground.place_on_redis() as here:
        return _malformed(ground, here)


def _malformed(ground: Ground, here: Place) -> Outcome:
    messages = ground.sized(300)
    told = malformed.run(here, seed=ground.seed, messages=messages, per_second=10)
    return Outcome(
        f"malformed messages of {len(told.reasons)} kinds, between good ones",
        messages,
        told.report.accepted,
        told.report,
        more={
            "reasons": told.reasons,
            "good_messages_received_until_decided_seconds": {
                "median": round(told.median, 2),
                "worst": round(told.longest, 2),
            },
        },
        versions=versions(here.broker_url, here.redis_url, here.database_url),
    )


def _alerts(ground: Ground) -> Outcome:
    with ground.place_on_rabbitmq() as here:
        watch = alerts.run(here)
        return Outcome(
            "each alert's fault, while both lanes work: its alert fires, and clears after",
            len(watch.seen),
            watch.load.sent,
            Report(accepted=watch.load.sent, settled=here.count("check_request")),
            more={
                "spans_divided_by": FASTER,
                "alerts": [asdict(one) for one in watch.seen],
                "counts_under_load": watch.counts,
                "dashboard_queries_with_data": watch.queries,
                "prometheus": watch.version,
            },
            versions=versions(here.broker_url, here.redis_url, here.database_url),
        )


def _simulation(ground: Ground) -> Outcome:
    first = ground.seed * 1_000_000
    seeds = range(first, first + ground.sized(100_000))
    items = simulation.run(seeds)
    about = f"seeds {seeds[0]} to {seeds[-1]}"
    return Outcome(
        f"simulated schedules of every fault between the seams, {about}: 0 violations",
        len(seeds),
        items,
        Report(accepted=items, settled=items),
        more={"schedules": len(seeds), "violations": 0, "seeds": [seeds[0], seeds[-1]]},
    )


def _query_page(ground: Ground) -> Outcome:
    assert browser.program(), "this part needs Chromium: install it, or name it in PRESEND_TEST_BROWSER"
    with ground.on_own_postgres() as (postgres, folder):
        sandbox = query_page.Turnstile(latency=Latency(scale=0.5))

        def restart() -> None:
            postgres.kill()
            postgres.start()

        with (
            serving(sandbox) as provider_url,
            query_page.sited(postgres.url, provider_url, folder) as site,
        ):
            told = query_page.run(site, sandbox, rows=ground.sized(200_000), meanwhile=restart)
        return Outcome(
            "a list through the query page in Chromium: paused, kill -9 of presend serve and PostgreSQL, "
            "resumed, kill -9 of presend serve in mid-call",
            len(told.recoveries),
            told.numbers,
            _bought(told, accepted=told.rows, lost=told.wrong),
            told.recoveries,
            asdict(told),
            versions(postgres.url) | {"Chromium": browser.version()},
        )


def _prepaid(ground: Ground) -> Outcome:
    balance, numbers = ground.sized(1000), ground.sized(5000)
    with ground.on_own_postgres() as (postgres, folder):
        sandbox = WatchedSandbox(latency=Latency(scale=0.5))
        with (
            serving(sandbox) as provider_url,
            query_page.sited(postgres.url, provider_url, folder) as site,
        ):
            told = prepaid.run(site, sandbox, balance=balance, callers=64, numbers=numbers)
        return Outcome(
            f"64 callers of a prepaid balance of {balance:,}, kill -9 of presend serve on the way: "
            f"{told.charged:,} charged, {told.answered:,} answered, the rest listed",
            len(told.recoveries),
            numbers,
            _bought(told, accepted=told.charged, lost=told.lost),
            told.recoveries,
            asdict(told),
            versions(postgres.url),
        )


def _bought(told: query_page.Told | prepaid.Told, *, accepted: int, lost: int) -> Report:
    return Report(
        accepted=accepted,
        settled=accepted,
        lost=lost,
        billed=told.billed,
        billed_again_listed=told.billed_again_listed,
        billed_again_unlisted=told.billed_again_unlisted,
    )


PARTS: dict[str, Part] = {
    "kills-rabbitmq": Part(18, _kills_rabbitmq),
    "crash-points": Part(15, _crash_points),
    "kills-redis": Part(9, _kills_redis),
    "services": Part(12, _services),
    "cuts": Part(12, _cuts),
    "controls": Part(4, _controls),
    "soak": Part(65, _soak),
    "misbehaviours": Part(10, _misbehaviours),
    "malformed-rabbitmq": Part(2, _malformed_rabbitmq),
    "malformed-redis": Part(2, _malformed_redis),
    "simulation": Part(15, _simulation),
    "alerts": Part(7, _alerts),
    "query-page": Part(5, _query_page),
    "prepaid": Part(3, _prepaid),
}
