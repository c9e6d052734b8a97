"""What processes show to Prometheus, and which metrics there are."""

from __future__ import annotations

import socket
import urllib.request
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

import worker.metrics.batches
import worker.metrics.endpoint
import worker.metrics.events
import worker.metrics.fleet
import worker.metrics.lanes
import worker.metrics.messages
import worker.metrics.provider
from worker.metrics.registry import REGISTRY

_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
_LABELS = {"_bucket": ("le",)}


def families() -> dict[str, Metric]:
    """Every metric of ours, by its name; also those that only upkeep shows."""
    found = [*REGISTRY.collect(), *worker.metrics.fleet._fleet.describe()]
    return {_shown(family): family for family in found if family.name.startswith("presend_")}


def series_names() -> dict[str, Metric]:
    """Every name a query may use."""
    return {
        family.name + suffix: family for family in families().values() for suffix in _SUFFIXES[family.type]
    }


def _shown(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def labels_of(name: str) -> tuple[str, ...]:
    """The labels a metric has, by what it is declared with."""
    collector = REGISTRY._names_to_collectors[name.removesuffix("_total")]
    declared = getattr(collector, "_labelnames", None)
    return tuple(declared if declared is not None else families()[name]._labelnames)


@dataclass(frozen=True)
class Scrape:
    """One look at a process."""

    text: str

    def samples(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        return {
            frozenset(sample.labels.items()): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if sample.name == name
        }

    def sum(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        return sum(value for its, value in self.samples(name).items() if labels.items() <= dict(its).items())


def scrape(port: int, path: str = "/metrics") -> Scrape:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return Scrape(answer.read().decode())


def free_ports(count: int) -> int:
    """The first of consecutive ports that were free a moment ago."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            if port + count < 65536 and all(_free(port + more) for more in range(1, count)):
                return port


def _free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
