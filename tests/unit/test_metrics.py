"""Metrics: what is counted, how it is served, and that docs/metrics.md tells them all."""

from __future__ import annotations

import re
import socket
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scraping import families, free_ports, labels_of, scrape
from worker.metrics import endpoint, fleet, lanes, messages
from worker.metrics.registry import REGISTRY, Spread
from worker.portability.requests import Lane

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
def spread() -> Iterator[Spread]:
    made = Spread("presend_test_seconds", "Of a test", "lane", (0.1, 1, 10))
    yield made
    REGISTRY.unregister(made)


def test_the_document_tells_every_metric_its_type_and_labels() -> None:
    rows = re.findall(
        r"^\| `(presend_\w+)` \| (\w+) \| ([^|]*) \|", DOCUMENT.read_text("utf-8"), re.MULTILINE
    )
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert told == {name: (family.type, labels_of(name)) for name, family in families().items()}


def test_names_are_in_base_units() -> None:
    for name, family in families().items():
        assert not re.search(r"_(ms|millis\w*|micros\w*|days|hours|minutes|percent)(_|$)", name), name
        assert family.documentation.strip(), name


def test_a_batch_of_values_is_counted_by_the_bound_it_does_not_exceed(spread: Spread) -> None:
    spread.add("sms", [0.1, 0.11, 1.0, 50])
    spread.add("sms", [-3, 5])
    spread.add("sms", [])
    (family,) = spread.collect()
    found = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert found["0.1"] == 2, "0.1 itself, and the one that clocks made negative"
    assert found["1"] == 4
    assert found["10"] == 5
    assert found["+Inf"] == found["presend_test_seconds_count"] == 6
    assert found["presend_test_seconds_sum"] == pytest.approx(0.1 + 0.11 + 1 + 50 + 5)


def test_a_task_name_that_is_not_ours_is_no_label() -> None:
    before = REGISTRY.get_sample_value("presend_dead_letters_parked_total", {"task": "other"}) or 0.0
    messages.parked(["13912345678", None, "sms.recheck"])
    assert REGISTRY.get_sample_value("presend_dead_letters_parked_total", {"task": "other"}) == before + 2


def test_a_taken_port_is_skipped_and_only_metrics_are_served() -> None:
    first = free_ports(2)
    with socket.create_server(("127.0.0.1", first)):
        served = endpoint.open_endpoint("127.0.0.1", first, role="test")
        assert served is not None
        try:
            assert served.port == first + 1
            assert scrape(served.port).sum("presend_build_info", role="test") == 1
            with pytest.raises(urllib.error.HTTPError, match="404"):
                scrape(served.port, "/")
        finally:
            served.close()


def test_nothing_is_served_where_that_cannot_be_and_the_log_says_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert endpoint.open_endpoint("127.0.0.1", 0, role="test") is None
    assert "metrics" not in capsys.readouterr().out
    assert endpoint.open_endpoint("192.0.2.1", free_ports(1), role="test") is None
    assert "PRESEND_METRICS_HOST" in capsys.readouterr().out


def test_an_upkeep_that_stands_by_shows_nothing_of_the_fleet() -> None:
    fleet.lead(True)
    fleet.show(fleet.BROKER, {"presend_queue_messages": {("sms",): 3}}, at=1.0)
    assert REGISTRY.get_sample_value("presend_queue_messages", {"queue": "sms"}) == 3
    assert REGISTRY.get_sample_value("presend_fleet_refreshed_timestamp_seconds", {"source": "broker"}) == 1
    fleet.lead(False)
    assert REGISTRY.get_sample_value("presend_queue_messages", {"queue": "sms"}) is None
    assert REGISTRY.get_sample_value("presend_upkeep_leader") == 0


def test_a_front_door_s_own_lane_and_that_of_its_jobs_are_added_up() -> None:
    def calls() -> dict[str, int]:
        return {"slots": 8, "busy": 1, "waiting": 5}

    def jobs() -> dict[str, int]:
        return {"slots": 2, "busy": 2, "waiting": 0}

    before = REGISTRY.get_sample_value("presend_slots", {"lane": "direct"}) or 0
    lanes.show(Lane.DIRECT, calls)
    lanes.show(Lane.DIRECT, jobs)
    assert REGISTRY.get_sample_value("presend_slots", {"lane": "direct"}) == before + 10
    lanes.hide(Lane.DIRECT, calls)
    assert REGISTRY.get_sample_value("presend_slots", {"lane": "direct"}) == before + 2
    lanes.hide(Lane.DIRECT, jobs)
    assert (REGISTRY.get_sample_value("presend_slots", {"lane": "direct"}) or 0) == before
