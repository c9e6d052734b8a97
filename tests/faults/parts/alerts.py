"""Every alert's fault, caused while both lanes work: Prometheus sees it, and sees it end.

The counts of Prometheus, Flower and ``celery inspect stats`` are held against each other under this load,
and in the end every query of the dashboards has to have had data.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from tests import commands
from tests.acceptance.harness import Place
from tests.acceptance.processes import ROOT, Process, celery
from tests.acceptance.test_flower import flower
from tests.acceptance.waiting import eventually
from tests.dashboards import boards, queries
from tests.faults.prometheus import Prometheus
from tests.scraping import free_ports
from tests.services import connect_amqp
from worker.lane_control import LaneControl
from worker.portability.requests import Lane
from worker.sandbox.faults import Fault
from worker.sandbox.provider import DEFAULT_APIKEY, Account, Latency
from worker.storage.engine import connect

PER_SECOND = 20
"""Messages of each lane."""
BALANCE = 10_000_000
SETTINGS = {
    "daily_budget": "5000000",
    "balance_seconds": "1",
    "provider_timeout_seconds": "6,15",
    "recharge_expiry_seconds": "8",
}
_FIRES_SECONDS, _CLEARS_SECONDS = 120.0, 180.0
_PROCESSES = ("recharge", "sms", "upkeep")


@dataclass
class Seen:
    """An alert that fired and cleared."""

    fault: str
    alert: str
    # seconds from the fault's cause, and from its end
    fired_after: float
    cleared_after: float


@dataclass
class Watch:
    """A run of both lanes under Prometheus' eyes."""

    here: Place
    prometheus: Prometheus
    flower_url: str
    workers: dict[str, Process]
    load: Load
    seen: list[Seen] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    queries: int = 0
    # Prometheus' release
    version: str = ""

    def sees(
        self, fault: str, alert: str, cause: Callable[[], object], end: Callable[[], object], **labels: str
    ) -> None:
        """Cause a fault, wait for its alert, end the fault, wait for the alert's end."""
        assert not self.prometheus.firing(alert, **labels), f"{alert} fires before {fault}"
        began = time.monotonic()
        cause()
        eventually(
            lambda: self.prometheus.firing(alert, **labels),
            f"{alert}: {fault}",
            seconds=_FIRES_SECONDS,
            each_seconds=0.5,
        )
        fired = time.monotonic()
        end()
        ended = time.monotonic()
        eventually(
            lambda: not self.prometheus.firing(alert, **labels),
            f"the end of {alert}: {fault}",
            seconds=_CLEARS_SECONDS,
            each_seconds=0.5,
        )
        one = Seen(fault, alert, round(fired - began, 1), round(time.monotonic() - ended, 1))
        self.seen.append(one)
        with (self.here.folder / "alerts.log").open("a") as log:
            log.write(json.dumps(asdict(one)) + "\n")


class Load:
    """Messages of both lanes from a thread, each for another number but every eighth."""

    def __init__(self, here: Place) -> None:
        self._here = here
        self._stop = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._send, name="load", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def _send(self) -> None:
        for second in itertools.count():
            if self._stop.wait(0.25):
                return
            share = PER_SECOND // 4
            for lane, first in (("recharge", 139_0000_0000), ("sms", 138_0000_0000)):
                at = first + second * share
                numbers = [str(number if number % 8 else first) for number in range(at, at + share)]
                self._here.send_many(lane, numbers, prefix=f"{second}-", operator="CUCC")
                self.sent += share


@contextmanager
def watched(here: Place) -> Iterator[Watch]:
    """Start everything."""
    first = free_ports(4)
    here.settings |= SETTINGS | {"metrics_port": str(first)}
    here.sandbox.put_account(Account(DEFAULT_APIKEY, balance=BALANCE))
    here.sandbox.latency = Latency(scale=1, single_seconds=0.05, batch_seconds=0.15)
    flower_url = flower(here)
    # one after the other: each takes the first port that is free, and so does who comes in its place
    workers = {"recharge": here.worker("recharge"), "sms": here.worker("sms"), "upkeep": here.upkeep()}
    prometheus = Prometheus(here.folder, range(first, first + 3), int(flower_url.rsplit(":", 1)[1]))
    load = Load(here)
    try:
        yield Watch(here, prometheus, flower_url, workers, load)
    finally:
        load.end()
        prometheus.process.kill()


def run(here: Place) -> Watch:
    """The whole story."""
    with watched(here) as watch:
        eventually(
            lambda: watch.prometheus.number("sum(presend_decisions_total)") > 20 * PER_SECOND,
            "decisions in Prometheus",
            seconds=120,
        )
        _counts_agree(watch)
        for fault in (
            _provider_down,
            _balance_low,
            _gate_closed,
            _backlog_old,
            _dead_letters,
            _outbox_stuck,
            _events_unrouted,
            _recharges_wait,
            _budget_nearly_spent,
            _worker_gone,
            _upkeep_gone,
        ):
            fault(watch)
        asked = [each for board in boards().values() for each in queries(board)]
        watch.queries, watch.version = len(asked), watch.prometheus.version()
        empty = [
            f"{title}: {query}"
            for title, query in asked
            if not watch.prometheus.has_data(query.replace("$__rate_interval", "10s"))
        ]
        assert not empty, "queries without data:\n" + "\n".join(empty)
        return watch


# -- the faults ---------------------------------------------------------------------------------


def _provider_down(watch: Watch) -> None:
    faults = watch.here.sandbox.faults

    def fail() -> None:
        for each in ("carrier", "carrier_batch"):
            faults.add(Fault(kind="status", status=503, calls=None, processed=False, on=each))

    watch.sees("the provider answers 503", "PresendProviderFailing", fail, faults.clear)


def _balance_low(watch: Watch) -> None:
    watch.sees(
        "the balance lasts less than three days",
        "PresendBalanceLow",
        lambda: watch.here.sandbox.put_account(Account(DEFAULT_APIKEY, balance=5000)),
        lambda: watch.here.sandbox.put_account(Account(DEFAULT_APIKEY, balance=BALANCE)),
    )


def _gate_closed(watch: Watch) -> None:
    watch.sees(
        "the account is disabled",
        "PresendGateClosed",
        lambda: watch.here.sandbox.put_account(Account(DEFAULT_APIKEY, balance=BALANCE, disabled=True)),
        lambda: watch.here.sandbox.put_account(Account(DEFAULT_APIKEY, balance=BALANCE)),
        by="provider",
    )


def _backlog_old(watch: Watch) -> None:
    database = connect(watch.here.database_url, connections=1)
    control = LaneControl(database, causes=())
    watch.sees(
        "sms is paused while messages come",
        "PresendBacklogOld",
        lambda: control.pause(Lane.SMS, by="faults", reason="messages are to grow old"),
        lambda: control.resume(Lane.SMS, by="faults", reason="they are old enough"),
        queue="sms",
    )
    database.dispose()


def _dead_letters(watch: Watch) -> None:
    watch.sees(
        "a producer sends an operator that is none",
        "PresendDeadLettersArriving",
        lambda: watch.here.send_many("sms", ["13900000001"] * 5, prefix="bad", operator="Vodafone"),
        lambda: None,
        task="sms.recheck",
    )


def _outbox_stuck(watch: Watch) -> None:
    """A subscriber's full queue that refuses: the broker then confirms nothing that is routed to it."""
    with connect_amqp(watch.here.broker_url) as connection, connection.channel() as channel:

        def full() -> None:
            refuses = {"x-max-length": 1, "x-overflow": "reject-publish"}
            channel.queue_declare("faults.full", durable=True, auto_delete=False, arguments=refuses)
            channel.queue_bind("faults.full", "presend.events", "#")

        watch.sees(
            "a subscriber's queue is full and refuses",
            "PresendOutboxStuck",
            full,
            lambda: channel.queue_delete("faults.full"),
        )


def _events_unrouted(watch: Watch) -> None:
    with connect_amqp(watch.here.broker_url) as connection, connection.channel() as channel:
        watch.sees(
            "the only subscriber unbinds its queue",
            "PresendEventsUnrouted",
            lambda: channel.queue_unbind("acceptance.tap", "presend.events", "#"),
            lambda: channel.queue_bind("acceptance.tap", "presend.events", "#"),
        )


def _recharges_wait(watch: Watch) -> None:
    sandbox = watch.here.sandbox
    quick = sandbox.latency
    watch.sees(
        "the provider takes 3.5 s",
        "PresendRechargeWaitLong",
        lambda: setattr(sandbox, "latency", Latency(scale=1, single_seconds=3.5, batch_seconds=3.5)),
        lambda: setattr(sandbox, "latency", quick),
    )


def _budget_nearly_spent(watch: Watch) -> None:
    taken = watch.prometheus.number("max(presend_budget_taken_numbers)")

    def restart(**settings: str) -> None:
        assert watch.workers["upkeep"].stop() == 0
        watch.workers["upkeep"] = watch.here.upkeep(**settings)

    watch.sees(
        "the budget is set to little more than what is bought (in upkeep)",
        "PresendBudgetNearlySpent",
        lambda: restart(daily_budget=str(int(taken * 1.02))),
        restart,
        lane="sms",
    )


def _worker_gone(watch: Watch) -> None:
    def start() -> None:
        watch.workers["sms"] = watch.here.worker("sms")

    watch.sees("kill -9 of the sms worker", "PresendWorkerGone", watch.workers["sms"].kill, start, lane="sms")


def _upkeep_gone(watch: Watch) -> None:
    def start() -> None:
        watch.workers["upkeep"] = watch.here.upkeep()

    watch.sees("kill -9 of upkeep", "PresendUpkeepGone", watch.workers["upkeep"].kill, start)


# -- who counts what ----------------------------------------------------------------------------


def _counts_agree(watch: Watch) -> None:
    """Under load: what Flower and Celery count lies between two scrapes, one before and one after."""
    received, ended = "sum(presend_messages_received_total)", "sum(presend_messages_ended_total)"
    before = watch.prometheus.number(ended, at=time.time() - 2)
    with urllib.request.urlopen(f"{watch.flower_url}/api/tasks?limit=100000", timeout=60) as answer:
        tasks = json.load(answer).values()
    inspected = _inspected(watch)
    time.sleep(2.5)
    after = watch.prometheus.number(received)
    flower_ended = sum(task["state"] in {"SUCCESS", "FAILURE"} for task in tasks)
    watch.counts = {
        "prometheus_ended_a_scrape_before": before,
        "flower_received": len(tasks),
        "flower_ended": flower_ended,
        "celery_inspect_stats": inspected,
        "prometheus_received_a_scrape_after": after,
    }
    for name in ("flower_received", "flower_ended", "celery_inspect_stats"):
        assert before <= watch.counts[name] <= after, f"{name} is not between: {watch.counts}"


def _inspected(watch: Watch) -> int:
    done = subprocess.run(
        celery("inspect", "stats", "--json", "--timeout", "5"),
        env=commands.environment() | watch.here.environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    nodes = json.loads(done.stdout)
    return sum(count for node in nodes.values() for count in node["total"].values())
