"""What a part came to, its row in docs/reliability.md, and the memory of what has been run."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import redis

from tests.faults.invariants import Report
from tests.services import connect_amqp

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
RECORDS = ROOT / "docs" / "reliability"
_BEGIN, _END = "<!-- rows: make faults -->\n", "<!-- end of rows -->\n"
_HEAD = (
    "| part | fault | times | messages | lost | billed twice: listed / not | events twice "
    "| recovery s: median / p99 / worst | seed | run |\n|---|---|---|---|---|---|---|---|---|---|\n"
)


@dataclass(frozen=True)
class Outcome:
    """What a part came to."""

    fault: str
    times: int
    messages: int
    report: Report
    # seconds from each fault until work went on
    recoveries: Sequence[float] = ()
    # whatever else the part measured
    more: dict[str, Any] = field(default_factory=dict)
    # versions of the services it ran on
    versions: dict[str, str] = field(default_factory=dict)

    def recovery(self) -> dict[str, float]:
        """Median, p99 and worst of the recoveries, in seconds."""
        if not self.recoveries:
            return {}
        ordered = sorted(self.recoveries)
        p99 = ordered[min(len(ordered) - 1, -(-99 * len(ordered) // 100) - 1)]
        found = {"median": statistics.median(ordered), "p99": p99, "worst": ordered[-1]}
        return {name: round(seconds, 2) for name, seconds in found.items()}

    def record(self, *, seed: int, command: str) -> dict[str, Any]:
        """Everything one needs to judge and to repeat it."""
        figures = asdict(self.report)
        del figures["broken"]
        return {
            "fault": self.fault,
            "times": self.times,
            "messages": self.messages,
            "figures": figures,
            "recovery_seconds": self.recovery(),
            "more": self.more,
            "seed": seed,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "versions": self.versions | {"Celery": version("celery"), "Python": platform.python_version()},
            "commit": commit()[:10],
            "command": command,
        }


def versions(*urls: str) -> dict[str, str]:
    """The versions of the services at these URLs."""
    found = {}
    for url in urls:
        if url.startswith("postgres"):
            with psycopg.connect(url) as connection:
                found["PostgreSQL"] = str(connection.info.server_version // 10000)
        elif url.startswith("redis"):
            with redis.Redis.from_url(url) as client:
                info: Any = client.info("server")
            found["Valkey" if "valkey_version" in info else "Redis"] = (
                info.get("valkey_version") or info["redis_version"]
            )
        else:
            with closing(connect_amqp(url)) as broker:
                found["RabbitMQ"] = str(broker.server_properties["version"])
    return found


def commit() -> str:
    """The commit that is checked out."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write(name: str, record: dict[str, Any]) -> None:
    """Write a part's record, and the table of all records anew."""
    RECORDS.mkdir(exist_ok=True)
    (RECORDS / f"{name}.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
    text = DOCUMENT.read_text("utf-8")
    before, rest = text.split(_BEGIN)
    after = rest.split(_END)[1]
    rows = "".join(
        _row(path.stem, json.loads(path.read_text("utf-8"))) for path in sorted(RECORDS.glob("*.json"))
    )
    DOCUMENT.write_text(before + _BEGIN + _HEAD + rows + _END + after, "utf-8")


def _row(name: str, record: dict[str, Any]) -> str:
    figures, recovery = record["figures"], record["recovery_seconds"]
    versions = ", ".join(f"{each} {number}" for each, number in record["versions"].items())
    circumstances = f"{record['date']}, {record['machine']}; {versions}; commit {record['commit']}"
    cells = [
        f"[{name}](reliability/{name}.json)",
        record["fault"],
        f"{record['times']:,}",
        f"{record['messages']:,}",
        f"**{figures['lost']:,}**",
        f"{figures['billed_again_listed']:,} / **{figures['billed_again_unlisted']:,}**",
        f"{figures['events_again']:,}",
        " / ".join(f"{seconds:g}" for seconds in recovery.values()) or "–",
        str(record["seed"]),
        f"{circumstances}; `{record['command']}`",
    ]
    return f"| {' | '.join(cells)} |\n"


def machine() -> str:
    """Cores, memory and operating system."""
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} cores, {gigabytes:.0f} GB, {platform.system()} {platform.machine()}"
