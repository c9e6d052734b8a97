"""What a run left behind, gathered from everybody who saw something of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.acceptance.oracle import Expected
from tests.acceptance.traffic import Key
from tests.faults.traffic import Plan


@dataclass(frozen=True)
class Seen:
    """An event as the subscriber saw it."""

    id: str
    type: str
    digest: str
    # None: the event of a change of operator
    key: Key | None


@dataclass
class Evidence:
    """All that the invariants are about."""

    # the plan: what every key must be decided as, its number, and every tag sent (None: to be a dead letter)
    answers: dict[Key, Expected]
    numbers: dict[Key, str]
    tags: dict[str, Key | None]
    # the producer: tags the broker has confirmed
    accepted: set[str]
    # the provider: how often each number was billed
    bills: Counter[str]
    # the subscriber, repeated events included
    events: list[Seen]
    # Postgres
    ledger: list[dict[str, Any]]
    letters: list[dict[str, Any]]
    calls: list[dict[str, Any]]
    records: list[dict[str, Any]]
    changes: list[dict[str, Any]] = field(default_factory=list)
    # numbers in flight, batches not marked
    in_flight: int = 0
    unmarked: int = 0
    # messages left in the queues, by queue
    queued: dict[str, int] = field(default_factory=dict)
    # POSIX seconds from and to between which a call may be lost; None: whenever
    faults: list[tuple[float, float]] | None = None
    # what looks like one of our numbers, or is the key, in a log: where
    leaks: list[str] = field(default_factory=list)


def of_plan(plan: Plan, confirmed: Iterable[int]) -> dict[str, Any]:
    """The producer's part."""
    return {
        "answers": plan.answers,
        "numbers": plan.numbers,
        "tags": plan.tags,
        "accepted": {item.tag for index in confirmed for item in plan.messages[index].items},
    }


def of_postgres(database_url: str) -> dict[str, Any]:
    """Postgres' part."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:

        def rows(query: str) -> list[dict[str, Any]]:
            return connection.execute(query).fetchall()  # type: ignore[arg-type]

        return {
            "ledger": rows(
                "SELECT lane, source, reference, attempt, msisdn, decision, reason, "
                "target_operator, answered_from, event_id::text FROM check_request"
            ),
            "letters": rows("SELECT id::text, payload->>'x_tag' AS tag, reason FROM dead_letter"),
            "calls": rows(
                "SELECT id::text, outcome, numbers, billed, unanswered, overtaken, "
                'extract(epoch FROM sent_at)::float AS sent_at, extract(epoch FROM "until")::float AS until '
                "FROM lookup_call"
            ),
            "records": rows("SELECT msisdn, status, current_operator FROM port_record"),
            "changes": rows("SELECT msisdn, event_id::text FROM port_change"),
            "in_flight": rows("SELECT count(*) AS n FROM in_flight")[0]["n"],
            "unmarked": rows("SELECT count(*) AS n FROM lookup_batch WHERE emitted_at IS NULL")[0]["n"],
        }


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log of JSON lines; its writer may be killed in the middle of one."""
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line]


def bills(log: Path) -> Counter[str]:
    """How often each number was billed."""
    counted: Counter[str] = Counter()
    for line in lines(log):
        counted.update(line.get("billed", ()))
    return counted


def events(log: Path) -> list[Seen]:
    """Every event the subscriber wrote down."""
    return [
        Seen(line["id"], line["type"], line["digest"], Key(*line["key"]) if line["key"] else None)
        for line in lines(log)
    ]


def seen(body: bytes) -> Seen:
    """An event as somebody received it."""
    event = json.loads(body)
    data = event["data"]
    key = (
        None
        if "reference" not in data
        else Key(data["lane"], data["source"], data["reference"], data["attempt"])
    )
    return Seen(event["id"], event["type"], hashlib.sha256(body).hexdigest(), key)
