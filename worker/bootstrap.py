"""Composition root: the settings become a pipeline. Everything that is built is built here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from pathlib import Path

from kombu import Connection
from sqlalchemy import Engine
from sqlalchemy.exc import ArgumentError

from worker import config, redis_broker, tracing
from worker.asking import Asking
from worker.buyer import Buyer
from worker.carrier.client import HttpCarrier
from worker.config import Settings
from worker.errors import SettingsError
from worker.feed import Parts
from worker.fleet import Fleet
from worker.intake import Intake
from worker.lane_control import LaneControl
from worker.pipeline import Pipeline
from worker.portability.failure_codes import FailureCodes
from worker.portability.freshness import Freshness
from worker.portability.requests import Lane
from worker.portability.rules import Rules
from worker.publisher import Publisher, publisher_for
from worker.results import ResultWriter
from worker.sharing import Sharing
from worker.storage import lane_stops
from worker.storage.budget import Budget
from worker.storage.engine import connect
from worker.storage.gate import account_id
from worker.storage.lane_stops import Cause
from worker.storage.postgres_store import PostgresStore
from worker.storage.retention import Retention
from worker.upkeep import Upkeep

_QUEUE_LANES = (Lane.RECHARGE, Lane.SMS)


@dataclass(frozen=True, slots=True)
class Presend:
    """Everything a process of presend works with."""

    settings: Settings
    database: Engine
    store: PostgresStore
    carrier: HttpCarrier
    publisher: Publisher
    pipeline: Pipeline
    # whose gate closes when the provider refuses our key
    account: str

    def close(self) -> None:
        """Close every connection, for a process that goes on without it."""
        self.carrier.close()
        self.publisher.close()
        self.store.close()
        self.database.dispose()


def check(settings: Settings) -> None:
    """Raise ``SettingsError`` for what only building the parts shows to be wrong; no connection is opened."""
    with _understood("PRESEND_DATABASE_URL", "postgresql://user:password@host:port/database"):
        connect(settings.database_url)
    with _understood(
        "PRESEND_BROKER_URL", "amqp://user:password@host:port/vhost or redis://host:port/database"
    ):
        Connection(settings.broker_url)
    with _understood("PRESEND_REDIS_URL", "redis://host:port/database"):
        ResultWriter(settings.redis_url, keep_seconds=settings.result_seconds)
    build(settings).close()


@contextmanager
def _understood(setting: str, form: str) -> Iterator[None]:
    """Name the setting a library cannot read, and never its value, which may hold a password."""
    try:
        yield
    except (ValueError, ArgumentError):
        raise SettingsError(f"{setting} cannot be read: it must be {form}") from None


def build(settings: Settings) -> Presend:
    """Build a process's parts; connections are opened on first use."""
    slots = max(settings.slots(lane) for lane in Lane)
    connections = 2 * (slots + settings.job_slots) + 6
    database = connect(settings.database_url, connections=connections, by_key=True)
    carrier = HttpCarrier(
        settings.provider_url,
        settings.require_apikey(),
        single_timeout_seconds=settings.provider_timeout_seconds[0],
        batch_timeout_seconds=settings.provider_timeout_seconds[1],
        max_connections=2 * slots + settings.job_slots,
    )
    publisher = publisher_for(
        settings.broker_url, stream_length=settings.stream_length, event_batch=settings.event_batch
    )
    account = account_id(settings.provider_url, settings.require_apikey())
    store = PostgresStore(database, daily=budget(settings))
    buyer = Buyer(
        carrier,
        store,
        timeout_seconds=settings.provider_timeout_seconds,
        billed_codes=settings.billed_codes,
    )
    its_rules = rules(settings)
    sharing = Sharing(
        store,
        its_rules,
        provider=settings.provider_url,
        patience_seconds=settings.recharge_share_wait_seconds,
        hold_seconds=buyer.hold_seconds,
        budgeted=settings.daily_budget > 0,
    )
    pipeline = Pipeline(
        store=store,
        asking=Asking(store=store, sharing=sharing, buyer=buyer, account=account),
        publisher=publisher,
        rules=its_rules,
        account=account,
    )
    return Presend(settings, database, store, carrier, publisher, pipeline, account)


@dataclass(frozen=True, slots=True)
class Observing:
    """What a process works with that looks at presend from outside, and stops or replays things by hand."""

    database: Engine
    # None: this process is not told the provider's key, so it cannot ask for the balance
    carrier: HttpCarrier | None
    # whose gate closes when the provider refuses that key
    account: str | None
    broker_url: str
    budget: Budget
    rules: Rules
    intake: Mapping[Lane, Intake]
    # calls in flight at once, per process
    slots: Mapping[Lane, int]

    def close(self) -> None:
        """Close every connection."""
        if self.carrier is not None:
            self.carrier.close()
        self.database.dispose()


def observing(settings: Settings) -> Observing:
    """Build what looks at presend from outside; connections are opened on first use."""
    carrier = account = None
    if settings.provider_apikey:
        account = account_id(settings.provider_url, settings.provider_apikey)
        single, batch = settings.provider_timeout_seconds
        carrier = HttpCarrier(
            settings.provider_url,
            settings.provider_apikey,
            single_timeout_seconds=single,
            batch_timeout_seconds=batch,
            max_connections=2,
        )
    return Observing(
        database=connect(settings.database_url, connections=10, by_key=True),
        carrier=carrier,
        account=account,
        broker_url=settings.broker_url,
        budget=budget(settings),
        rules=rules(settings),
        intake=intakes(settings),
        slots={lane: settings.slots(lane) for lane in Lane},
    )


def budget(settings: Settings) -> Budget:
    """Return what may be bought a day."""
    return Budget(settings.daily_budget, settings.budget_reserve, settings.timezone)


def rules(settings: Settings) -> Rules:
    """Return what the decisions rest on."""
    return Rules(
        freshness=Freshness(settings.max_age_seconds),
        failure_codes=failure_codes(settings.failure_codes),
        not_asked=settings.sms_not_asked,
        max_attempts=settings.max_attempts,
    )


def failure_codes(overrides: Path | None) -> FailureCodes:
    """Return the shipped table of failure codes, with the user's file over it."""
    shipped = FailureCodes.shipped()
    if overrides is None:
        return shipped
    try:
        text = overrides.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise SettingsError(
            f"PRESEND_FAILURE_CODES: {overrides} cannot be read ({why}): "
            "name a readable CSV file there, or unset it"
        ) from exc
    return shipped.overridden_by(text)


def consumer_parts() -> Parts:
    """Return what this process's consumer is built from, built on first use."""
    presend = this_process()
    settings = presend.settings
    return Parts(
        pipeline=presend.pipeline,
        results=ResultWriter(settings.redis_url, keep_seconds=settings.result_seconds),
        intake=intakes(settings),
        slots={lane: settings.slots(lane) for lane in _QUEUE_LANES},
        linger_seconds={lane: settings.linger_seconds(lane) for lane in _QUEUE_LANES},
        lane_control=LaneControl(presend.database, causes=tuple(lane_causes(presend).values())),
        suspicions=presend.store.suspicions,
        announce=presend.store.announce,
    )


def lane_causes(presend: Presend) -> dict[str, Cause]:
    """Return what may keep a lane from taking messages, by name; of several the first one speaks."""
    return {
        "paused": lane_stops.paused,
        "gate_closed": partial(lane_stops.gate_closed, account=presend.account),
        "budget_spent": partial(lane_stops.budget_spent, daily=budget(presend.settings)),
    }


def upkeep() -> Upkeep:
    """Return this process's upkeep."""
    presend = this_process()
    if presend.settings.broker_is_redis:
        redis_broker.install()
    return Upkeep(
        database=presend.database,
        store=presend.store,
        carrier=presend.carrier,
        publisher=presend.publisher,
        intake=intakes(presend.settings),
        broker_url=presend.settings.broker_url,
        account=presend.account,
        retention=retention(presend.settings),
        fleet=_fleet(presend),
        balance_seconds=presend.settings.balance_seconds,
    )


def _fleet(presend: Presend) -> Fleet:
    settings = presend.settings
    return Fleet(
        database=presend.database,
        broker_url=settings.broker_url,
        account=presend.account,
        daily=budget(settings),
        causes=lane_causes(presend),
    )


def retention(settings: Settings) -> Retention:
    """Return how long rows are kept."""
    return Retention(
        ledger=timedelta(days=settings.ledger_days),
        dead_letters=timedelta(days=settings.dead_letter_days),
        port_changes=timedelta(days=settings.port_change_days),
        jobs=timedelta(days=settings.job_days),
    )


def intakes(settings: Settings) -> dict[Lane, Intake]:
    """Return the reader of each queue's messages."""
    return {
        Lane.RECHARGE: Intake(Lane.RECHARGE, expiry=settings.recharge_expiry),
        Lane.SMS: Intake(Lane.SMS),
    }


def this_process() -> Presend:
    """Return the parts of this process; a fork gets its own, for connections cannot be shared."""
    return _of_process(os.getpid())


@cache
def _of_process(_pid: int) -> Presend:
    settings = config.load()
    tracing.start(settings.traces_endpoint, share=settings.traces_share)
    return build(settings)
