"""Which way Postgres takes for each statement of the hot path on filled tables, as auto_explain saw it.

Batches go through the real pipeline over a ledger and port records filled as ``growth`` fills them: of one
number and of a thousand, unknown and known, often enough that Postgres plans for parameters it does not know;
then the relay, the calls of dead processes, and each kind of pruning. A filled table that is read as a whole
is marked ``WHOLE``. Needs a superuser, for auto_explain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, event

from tests.benchmarks.course import course
from tests.benchmarks.ground import Ground
from tests.benchmarks.parts import growth
from tests.benchmarks.parts.prune import KEPT
from tests.integration.bench import Bench
from tests.integration.bench import run as run_requests
from worker.portability.requests import Lane
from worker.sandbox.provider import Sandbox
from worker.storage import engine, retention
from worker.storage.retention import PRUNED

ROWS, _ROUNDS = 10_000_000, 12
_SIZES = (1, 1000)
_FILLED = {"check_request", "port_record", "lookup_call", "lookup_batch"}
_EXPLAIN = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_min_duration = 0",
    "SET auto_explain.log_analyze = on",
    "SET auto_explain.log_buffers = on",
    "SET auto_explain.log_timing = off",
    "SET auto_explain.log_format = 'json'",
    "SET client_min_messages = 'log'",
)
_WORDS = re.compile(r"\s+")


@dataclass
class _Seen:
    """What was seen of one statement."""

    runs: int = 0
    most_ms: float = 0.0
    most_buffers: int = 0
    # how each table was reached
    ways: set[str] = field(default_factory=set)

    def add(self, milliseconds: float, plan: dict[str, Any]) -> None:
        self.runs += 1
        self.most_ms = max(self.most_ms, milliseconds)
        self.most_buffers = max(
            self.most_buffers, plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0)
        )
        self.ways |= set(_ways(plan))

    @property
    def whole(self) -> bool:
        return any(way.startswith("WHOLE") for way in self.ways)


def run(ground: Ground) -> None:
    """On the Postgres the tests find."""
    seen: dict[str, _Seen] = {}
    with course(ground.folder) as here, here.database() as url:
        growth.fill(url, rows=ground.sized(ROWS))
        database = engine.connect(url, by_key=True)
        _listen(database, seen)
        _take_every_way(Bench(database, Sandbox()))
        database.dispose()
        for statement, one in sorted(seen.items()):
            print(
                f"{one.runs:4} runs, at most {one.most_ms:7.1f} ms, {one.most_buffers:6} pages: {statement}"
            )
            for way in sorted(one.ways):
                print(f"          {way}")
        whole = [statement for statement, one in seen.items() if one.whole]
        print(f"{len(seen)} statements, {len(whole)} that read a filled table as a whole", flush=True)
        figures = {
            "rows": ground.sized(ROWS),
            "statements": {
                statement: {
                    "runs": one.runs,
                    "most_ms": one.most_ms,
                    "most_pages": one.most_buffers,
                    "ways": sorted(one.ways),
                }
                for statement, one in sorted(seen.items())
            },
        }
        ground.write(figures, here.postgres_url)


def _take_every_way(bench: Bench) -> None:
    pipeline, upkeep = bench.pipeline(), bench.upkeep()
    for size in _SIZES:
        for lane in (Lane.SMS, Lane.RECHARGE):
            numbers = bench.known_numbers((_ROUNDS + 1) * size)
            for turn in range(_ROUNDS):
                chosen = numbers[turn * size : (turn + 1) * size]
                requests = [bench.request(lane, number) for number in chosen]
                run_requests(pipeline, *requests)
                run_requests(pipeline, *requests)  # the same messages again
    bench.publisher.refusing = True
    run_requests(pipeline, *(bench.request(Lane.SMS, number) for number in numbers[-1000:]))
    bench.publisher.refusing = False
    for _ in range(_ROUNDS):
        upkeep.relay(older_than_seconds=0)
        upkeep.give_up_dead_calls()
        for what in PRUNED:
            engine.transact(
                bench.database,
                lambda to, what=what: retention.prune_some(to, what, KEPT, bench.clock(), most=1000),  # type: ignore[misc]
            )
    for store in bench.stores:
        store.close()


def _listen(database: Engine, seen: dict[str, _Seen]) -> None:
    """Let every connection tell the plans of what it runs."""

    def note(diagnostic: Any) -> None:
        text = diagnostic.message_primary or ""
        if "plan:" not in text:
            return
        before, _, plan = text.partition("plan:")
        told = json.loads(plan)
        statement = _WORDS.sub(" ", told["Query Text"]).strip()[:110]
        seen.setdefault(statement, _Seen()).add(float(before.split()[1]), told["Plan"])

    @event.listens_for(database, "connect")
    def explain(connection: Any, _record: Any) -> None:
        connection.add_notice_handler(note)
        with connection.cursor() as cursor:
            for setting in _EXPLAIN:
                cursor.execute(setting)
        connection.commit()


def _ways(plan: dict[str, Any]) -> Iterator[str]:
    """How a plan reaches each table, with the rows it touched there."""
    table, kind = plan.get("Relation Name"), plan["Node Type"]
    if table is not None and kind != "ModifyTable":
        index = plan.get("Index Name", "")
        mark = "WHOLE " if kind == "Seq Scan" and table in _FILLED else ""
        yield f"{mark}{table}: {kind} {index}".rstrip()
    elif kind == "Bitmap Index Scan":
        yield f"{kind} {plan['Index Name']}"
    for part in plan.get("Plans", ()):
        yield from _ways(part)
