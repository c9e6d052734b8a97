"""docs/logs.md tells every event that the code logs, its level and its fields."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
_LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
_BY_HAND = {"log_line_lost"}  # written without the logger, which failed


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every event that is logged, with the call that does it."""
    for path in sorted((CHECKOUT / "worker").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and _logs(node.func):
                first = node.args[0]
                assert isinstance(first, ast.Constant), f"{path}:{node.lineno}: an event's name is a constant"
                yield str(first.value), node


def _logs(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return (
            function.attr in _LEVELS
            and isinstance(function.value, ast.Name)
            and function.value.id in {"log", "logger"}
        )
    return isinstance(function, ast.Name) and function.id == "report"  # the buyer chooses the level


def documented() -> dict[str, set[str]]:
    """Fields by event; rows may tell several events."""
    fields: dict[str, set[str]] = {}
    for line in (CHECKOUT / "docs" / "logs.md").read_text("utf-8").splitlines():
        if line.startswith("| `"):
            names, _level, told, _meaning = (cell.strip() for cell in line.strip()[1:-1].split("|"))
            for name in re.findall(r"`(\w+)`", names):
                assert name not in fields, f"{name} is told twice"
                fields[name] = {each.strip() for each in told.split(",")}
    return fields


def test_every_event_is_told_and_none_that_is_gone() -> None:
    assert {name for name, _ in calls()} | _BY_HAND == set(documented())


def test_the_fields_are_told() -> None:
    logged: dict[str, set[str]] = defaultdict(set)
    for name, call in calls():
        logged[name] |= {each.arg for each in call.keywords if each.arg not in {None, "exc_info"}}  # type: ignore[misc]
    told = documented()
    missing = {name: fields - told[name] for name, fields in logged.items() if fields - told[name]}
    assert not missing


def test_names_are_snake_case() -> None:
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name, _ in calls())
