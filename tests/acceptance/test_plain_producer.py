"""A producer without presend: Celery, Redis and the README's recipe are all it has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import celery as celery_package
import pytest

from tests.acceptance.harness import Place
from tests.acceptance.processes import ROOT
from tests.acceptance.waiting import eventually

SCRIPT = Path(__file__).with_name("producer.py")
SITE_PACKAGES = Path(celery_package.__file__).parents[1]
# no .pth files, so no editable presend; nothing of this folder either
_ISOLATED = (
    "import sys, runpy; sys.path.append({site!r}); sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
MESSAGES: list[tuple[str, dict[str, Any]]] = [
    ("recharge.precheck", {"order_id": "A1", "mobile": "13972565391", "operator": "CMCC"}),
    (
        "sms.recheck",
        {"message_id": "B1", "mobile": "13798361236", "operator": "移动", "failure_code": "MK:0001"},
    ),
    ("recharge.precheck_many", {"items": [{"order_id": "C1", "mobile": "13352918995"}, {"order_id": "C 2"}]}),
    ("sms.recheck", {"message_id": "D1", "mobile": "13163320753"}),
]


def test_worker_first(here: Place) -> None:
    here.worker("recharge", "sms")
    check_answers(run(here, [sys.executable, "-I", "-S", "-c", _ISOLATED.format(site=str(SITE_PACKAGES))]))
    here.stop()


def test_producer_first(here: Place) -> None:
    """The producer declares the queues on a fresh broker; a worker that comes later takes them so."""
    command = [sys.executable, "-I", "-S", "-c", _ISOLATED.format(site=str(SITE_PACKAGES))]
    answers = run(here, command, MESSAGES[:1], timeout_seconds=0.2)
    assert answers[0]["raised"] == "TimeoutError"
    here.worker("recharge", "sms")
    eventually(lambda: here.count("check_request") == 1, "the message that was there first")
    check_answers(run(here, command))
    here.stop()


@pytest.mark.parametrize("first", ["worker", "producer"])
def test_readme_recipe(here: Place, first: str) -> None:
    """The README's own lines, with the URLs of this place."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (recipe,) = [
        block.partition("```")[0]
        for block in readme.split("```python\n")[1:]
        if "task_default_exchange" in block.partition("```")[0]
    ]
    assert '"amqp://guest:guest@127.0.0.1:5672//"' in recipe
    recipe = recipe.replace('"amqp://guest:guest@127.0.0.1:5672//"', repr(here.broker_url))
    recipe = recipe.replace('"redis://127.0.0.1:6379/0"', repr(here.redis_url))
    recipe = recipe.replace("get(timeout=5)", "get(timeout=30)")  # the worker may only be starting
    script = here.folder / "recipe.py"
    script.write_text(recipe, encoding="utf-8")
    if first == "worker":
        here.worker("recharge", "sms")
    isolated = _ISOLATED.format(site=str(SITE_PACKAGES))
    producer = here.run("producer", [sys.executable, "-I", "-S", "-c", isolated, str(script)])
    if first == "producer":
        here.worker("recharge", "sms")
    assert producer.ended() == 0
    assert producer.log.strip() == "reroute"
    here.decided(2)
    here.stop()


@pytest.mark.skipif(
    not os.environ.get("PRESEND_TEST_SLOW"), reason="PRESEND_TEST_SLOW=1 installs Celery anew"
)
@pytest.mark.timeout(300)
def test_from_a_venv_of_its_own(here: Place, tmp_path: Path) -> None:
    """``pip install 'celery[redis]'`` is really all."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "celery[redis]>=5.7,<5.8"], check=True)
    here.worker("recharge", "sms")
    check_answers(run(here, [python, "-I", "-c", _ISOLATED.format(site=str(tmp_path))]))
    here.stop()


def run(
    here: Place,
    command: list[str],
    messages: list[tuple[str, dict[str, Any]]] = MESSAGES,
    *,
    timeout_seconds: float = 2,
) -> list[dict[str, Any]]:
    """What the producer's script prints."""
    done = subprocess.run(
        [*command, str(SCRIPT), here.broker_url, here.redis_url, str(timeout_seconds)],
        input=json.dumps(messages),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=here.folder,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def check_answers(answers: list[dict[str, Any]]) -> None:
    """The document's four numbers: one ported, three not."""
    precheck, recheck, many, bad = answers
    assert precheck["result"]["decision"] == "reroute"
    assert precheck["result"]["target_operator"] == "CTCC"
    assert recheck["result"]["reason"] == "permanent_failure"
    assert many["result"][0]["reason"] == "no_product_operator"
    assert "order_id" in many["result"][1]["rejected"]
    assert (bad["raised"], bad["state"]) == ("Rejected", "FAILURE")
    assert "operator" in bad["words"]
    assert [answer["state"] for answer in answers[:3]] == ["SUCCESS"] * 3
