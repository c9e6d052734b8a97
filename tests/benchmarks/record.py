"""What a benchmark measured, with all one needs to repeat it; committed under docs/benchmarks/."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tests.faults.outcome import ROOT, commit, machine

FOLDER = ROOT / "docs" / "benchmarks"
_PACKAGES = ("celery", "kombu", "amqp", "redis", "httpx", "psycopg", "sqlalchemy")


def quantile_ms(seconds: Sequence[float], share: float) -> float:
    """The quantile of durations, in milliseconds to a tenth."""
    return round(statistics.quantiles(seconds, n=1000, method="inclusive")[round(share * 1000) - 1] * 1000, 1)


def write(name: str, figures: dict[str, Any], *, command: str, services: dict[str, str]) -> None:
    """Write one benchmark's record; the newest run replaces the last."""
    record = {
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        # processes that wanted a core in the last quarter of an hour: more than the cores means a crowd
        "load": round(os.getloadavg()[2], 1),
        "services": services,
        "python": platform.python_version(),
        "packages": {package: version(package) for package in _PACKAGES},
        "commit": commit()[:10],
        "command": command,
        "figures": figures,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
