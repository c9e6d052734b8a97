"""Alert rules: their own tests pass, each has a runbook entry, and no query names what does not exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scraping import series_names

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOK = ROOT / "docs" / "operations.md"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        assert not os.environ.get("CI"), "promtool is missing: install Debian's package prometheus"
        pytest.skip("promtool is missing: it is in Debian's package prometheus")
    done = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_configuration() -> None:
    promtool("check", "config", "--lint-fatal", "prometheus.yml")


def test_each_alert_fires_as_its_unit_test_says() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_each_alert_has_a_unit_test_that_sees_it_fire() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text("utf-8"))["tests"]
    fired = {
        case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if case["exp_alerts"]
    }
    assert fired == alerts().keys()


def test_each_alert_has_its_entry_in_the_runbook() -> None:
    entries = re.split(r"^### ", RUNBOOK.read_text("utf-8"), flags=re.MULTILINE)[1:]
    told = {entry.split("\n", 1)[0].strip(): entry for entry in entries}
    assert told.keys() >= alerts().keys()
    for name, alert in alerts().items():
        for part in ("**Means**", "**Look at**", "**Do**"):
            assert part in told[name], f"{name} lacks {part}"
        assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
        assert alert["labels"]["severity"] in {"critical", "warning"}
    assert {name for name in told if name.startswith("Presend")} == alerts().keys(), (
        "an entry without its alert"
    )


def test_no_rule_names_a_metric_that_does_not_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        unknown = metrics_in(rule["expr"]) - series_names().keys() - recorded
        assert not unknown, f"{rule.get('alert') or rule['record']}: {unknown}"


def metrics_in(query: str) -> set[str]:
    """Names of our metrics in a query."""
    return set(re.findall(r"\bpresend[_:]\w+", re.sub(r'"[^"]*"', '""', query)))
