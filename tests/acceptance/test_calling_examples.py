"""docs/front-door.md's three ways to ask, as they stand there: curl, httpx, and a Celery producer."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

from tests.acceptance.harness import Place
from tests.acceptance.processes import ROOT
from tests.front_door import front_door

_DOCUMENT = (ROOT / "docs" / "front-door.md").read_text("utf-8")
_SECTION = _DOCUMENT.split("## Calling it")[1].split("\n## ")[0]


def test_each_of_them_answers(on_redis: Place) -> None:
    here = on_redis
    worker = here.worker("recharge", ready=False)
    with front_door(here.database_url, here.provider_url) as front:
        key = front.account(balance=10)
        env = {**os.environ, "K": key, "U": front.url, "NO_PROXY": "*"}
        lines = re.findall(r"^    (curl .*)$", _SECTION, re.MULTILINE)
        answers = [json.loads(_run(line, env)) for line in lines]
        single, batch, balance = answers
        assert (single["code"], single["result"]["Now_isp"]) == (0, "电信")
        assert [item["code"] for item in batch] == [0, 0]
        assert balance["result"]["balance"] == "7"

        by_httpx, by_celery = re.findall(r"```python\n(.*?)```", _SECTION, re.DOTALL)
        assert '"http://127.0.0.1:8500"' in by_httpx
        program = by_httpx.replace('"http://127.0.0.1:8500"', repr(front.url))
        assert _printed(program, KEY=key) == "电信 live"
        worker.wait_for(" ready.")
        program = by_celery.replace("get(timeout=5)", "get(timeout=30)")
        assert _printed(program, app=here.producer) == "CTCC"
        assert front.charged() == 4, "the queue's callers have no account"
    here.stop()


def _run(line: str, env: dict[str, str]) -> str:
    return subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, check=True).stdout


def _printed(program: str, **names: Any) -> str:
    """What a block of the document prints."""
    printed: list[str] = []  # not the whole of stdout: the front door logs to that
    names["print"] = lambda *words: printed.append(" ".join(map(str, words)))
    exec(compile(program, "front-door.md", "exec"), names)
    return "\n".join(printed)
