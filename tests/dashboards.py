"""The dashboards under deploy/grafana, and what they ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "deploy" / "grafana"


def boards() -> dict[str, dict[str, Any]]:
    """The dashboards by the names of their files."""
    files = sorted((FOLDER / "dashboards").glob("*.json"))
    return {file.stem: json.loads(file.read_text("utf-8")) for file in files}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Its panels, rows left out."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each query with the title of its panel."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield f"{board['title']}: {panel['title']}", target["expr"]
    for annotation in board["annotations"]["list"]:
        yield f"{board['title']}: {annotation['name']}", annotation["expr"]
