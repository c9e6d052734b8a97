"""Flower shows every message as a task, and no number anywhere."""

from __future__ import annotations

import re
import socket
from collections import Counter
from typing import Any

import httpx

from tests.acceptance.harness import Place
from tests.acceptance.processes import celery
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually


def test_a_hundred_tasks(here: Place) -> None:
    numbers = plain_numbers(94)
    url = flower(here)
    here.worker("recharge", "sms")
    eventually(lambda: httpx.get(f"{url}/api/workers?refresh=1").json(), "the worker in Flower")
    for number in numbers[:50]:
        here.send("recharge.precheck", order_id=f"O{number[-5:]}", mobile=f"+86 {number}", operator="CMCC")
    for number in numbers[50:90]:
        here.send("sms.recheck", message_id=f"S{number[-5:]}", mobile=number, operator="移动")
    many = [
        {
            "message_id": f"M{number[-5:]}",
            "mobile": f"{number[:3]}-{number[3:7]}-{number[7:]}",
            "operator": "CUCC",
        }
        for number in numbers[90:]
    ]
    here.send("sms.recheck_many", items=many)
    for wrong in range(9):
        here.send("sms.recheck", message_id=f"W{wrong}", mobile=numbers[wrong], operator="Vodafone")

    def tasks() -> dict[str, Any]:
        shown = httpx.get(f"{url}/api/tasks?limit=1000").json()
        states = Counter(task["state"] for task in shown.values())
        return dict(shown) if states == {"SUCCESS": 91, "FAILURE": 9} else {}

    shown = eventually(tasks, "91 tasks succeeded and 9 failed in Flower")
    here.check_settled(94)
    assert Counter(task["name"] for task in shown.values()) == {
        "recharge.precheck": 50,
        "sms.recheck": 49,
        "sms.recheck_many": 1,
    }
    results = Counter(task["result"] for task in shown.values() if task["state"] == "SUCCESS")
    assert results == {
        "confirmed (same_operator)": 50,
        "resend (same_operator)": 40,
        "4 reroute (other_operator)": 1,
    }
    assert all("Rejected" in task["exception"] for task in shown.values() if task["state"] == "FAILURE")

    everything = "".join(
        httpx.get(f"{url}{path}").text
        for path in ("/api/tasks?limit=1000", "/api/workers", "/tasks", f"/task/{next(iter(shown))}")
    )
    assert "139****" in everything
    assert not numbers_in(everything, numbers)
    here.stop()
    assert not [process.name for process in here.processes if numbers_in(process.log, numbers)]


def numbers_in(text: str, numbers: list[str]) -> set[str]:
    """Which of these numbers a text shows, however grouped; longer runs of digits are something else."""
    found = re.findall(r"(?<!\d)(?:86)?(1\d{2})[ -]?(\d{4})[ -]?(\d{4})(?!\d)", text)
    return {"".join(groups) for groups in found} & set(numbers)


def flower(here: Place) -> str:
    """Start Flower on a free port, as the README does; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = celery("flower", f"--port={port}", "--address=127.0.0.1")
    process = here.run("flower", ["/usr/bin/env", "FLOWER_UNAUTHENTICATED_API=1", *command])
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.alive
        try:
            return httpx.get(f"{url}/healthcheck").status_code == 200
        except httpx.TransportError:
            return False

    eventually(answers, "Flower's answer")
    return url
