"""A real Prometheus with the real rules, in shorter spans."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.acceptance.processes import Process
from tests.acceptance.waiting import eventually
from tests.scraping import free_ports

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
FASTER = 20
"""Spans of the rules are divided by this: every `for`, every range, and the thresholds below."""
THRESHOLDS = {'queue="sms"} > 900': 'queue="sms"} > 45', "oldest_seconds) > 120": "oldest_seconds) > 6"}
SCRAPED_EACH_SECONDS = 1
_SECONDS = {"m": 60, "h": 3600}


def shortened(text: str) -> str:
    """The rules, faster."""
    for long, short in THRESHOLDS.items():
        assert text.count(long) == 1, long
        text = text.replace(long, short)
    text = re.sub(r"(?<=for: )(\d+)([mh])", _shorter, text)
    return re.sub(r"(?<=\[)(\d+)([mh])(?=\])", _shorter, text)


def _shorter(found: re.Match[str]) -> str:
    return f"{int(found[1]) * _SECONDS[found[2]] // FASTER}s"


class Prometheus:
    """It scrapes these ports once a second until it is stopped."""

    def __init__(self, folder: Path, ports: Sequence[int], flower_port: int) -> None:
        program = shutil.which("prometheus")
        assert program, "prometheus is missing: install Debian's package prometheus"
        (folder / "alerts.yml").write_text(shortened(RULES.read_text("utf-8")), "utf-8")
        config = folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(_config(ports, flower_port)), "utf-8")
        self.port = free_ports(1)
        self.process = Process(
            "prometheus",
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=warn",
            ],
            {},
            folder,
        )
        eventually(self._ready, "Prometheus", seconds=60)
        self.began = time.time()

    def query(self, query: str, *, at: float | None = None) -> dict[str, float]:
        """The values by their labels, written as Prometheus does, without the name."""
        found = self._ask("query", query=query, **({} if at is None else {"time": at}))
        return {_labels(one["metric"]): float(one["value"][1]) for one in found["result"]}

    def number(self, query: str, *, at: float | None = None) -> float:
        """The one value of a query without labels; 0 where there is none."""
        return next(iter(self.query(query, at=at).values()), 0.0)

    def has_data(self, query: str) -> bool:
        """Whether a query had a value at any time of the run."""
        found = self._ask("query_range", query=query, start=self.began, end=time.time(), step=2)
        return any(math.isfinite(float(value)) for series in found["result"] for _, value in series["values"])

    def version(self) -> str:
        """Its release."""
        return str(self._ask("status/buildinfo")["version"])

    def firing(self, alert: str, **labels: str) -> bool:
        """Whether an alert fires now."""
        matchers = "".join(f',{name}="{value}"' for name, value in labels.items())
        return bool(self.query(f'ALERTS{{alertname="{alert}",alertstate="firing"{matchers}}}'))

    def _ask(self, what: str, **parameters: object) -> Any:
        body = urllib.parse.urlencode(parameters).encode() or None  # what takes no parameters wants GET
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/api/v1/{what}", body, timeout=30
        ) as answer:
            return json.load(answer)["data"]

    def _ready(self) -> bool:
        assert self.process.alive, self.process.log
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _labels(metric: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(metric.items()) if name != "__name__")


def _config(ports: Sequence[int], flower_port: int) -> dict[str, Any]:
    def job(name: str, *targets: int) -> dict[str, Any]:
        return {
            "job_name": name,
            "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in targets]}],
        }

    each = f"{SCRAPED_EACH_SECONDS}s"
    return {
        "global": {"scrape_interval": each, "scrape_timeout": each, "evaluation_interval": each},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [job("presend", *ports), job("flower", flower_port)],
    }
