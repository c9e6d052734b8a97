"""Grafana's dashboards: current panels with units, and no query names what does not exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dashboards import FOLDER, boards, panels, queries
from tests.scraping import labels_of, series_names
from tests.unit.test_alerts import metrics_in, promtool, rules

PANELS = {"timeseries", "stat", "table", "heatmap", "row"}
"""Those that Grafana 12 still has; graph, singlestat, table-old and all of Angular are gone."""
OTHERS = {"up", "ALERTS", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"}
ADDED = {"instance", "job", "service", "le", "alertname", "alertstate", "severity"}
"""Labels that Prometheus gives, not we."""


@pytest.fixture(params=sorted(boards()))
def board(request: pytest.FixtureRequest) -> dict[str, Any]:
    return boards()[request.param]


def test_panels_are_current_have_a_unit_and_do_not_overlap(board: dict[str, Any]) -> None:
    places: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["type"] in PANELS, panel["title"]
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & places, f"{panel['title']} lies on another"
        assert at["x"] + at["w"] <= 24
        places |= cells
    for panel in panels(board):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_dashboards_and_panels_ask_the_provisioned_source(board: dict[str, Any]) -> None:
    provisioned = yaml.safe_load(
        (FOLDER / "provisioning" / "datasources" / "prometheus.yml").read_text("utf-8")
    )
    (source,) = provisioned["datasources"]
    asked = re.findall(r'"uid": "([^"]+)"', json.dumps([*panels(board), board["annotations"]]))
    assert set(asked) == {source["uid"]}


def test_each_dashboard_has_an_address_of_its_own() -> None:
    assert {name: board["uid"] for name, board in boards().items()} == {
        name: f"presend-{name}" for name in ("overview", "provider", "reliability")
    }


def test_every_query_asks_for_what_there_is(board: dict[str, Any]) -> None:
    known, recorded = series_names(), {rule["record"] for rule in rules() if "record" in rule}
    for title, query in queries(board):
        unknown = metrics_in(query) - known.keys() - recorded
        assert not unknown, f"{title}: {unknown}"
        others = set(re.findall(r"\b(up|ALERTS|process_\w+)\b", query))
        assert metrics_in(query) | others, f"{title} asks for nothing"
        assert others <= OTHERS, title
        ours = {label for name in metrics_in(query) & known.keys() for label in _labels(name)}
        wanted = {
            label.strip()
            for group in re.findall(r"(?:by|on|group_left) \(([^)]*)\)", query)
            for label in group.split(",")
        } | set(re.findall(r'(\w+)(?:=~|!=|=)"', query))
        assert wanted <= ours | ADDED | {"queue"}, f"{title}: {wanted - ours - ADDED}"


def test_every_query_is_promql(tmp_path: Path) -> None:
    asked = [
        query.replace("$__rate_interval", "1m") for board in boards().values() for _, query in queries(board)
    ]
    made = [{"record": f"asked:{number}", "expr": query} for number, query in enumerate(asked)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": made}]}), "utf-8")
    promtool("check", "rules", str(file))


def _labels(name: str) -> tuple[str, ...]:
    return labels_of(re.sub(r"_(bucket|sum|count)$", "", name))
