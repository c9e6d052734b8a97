"""docs/asyncapi.yaml tells the messages and events the code takes and sends, no more and no fewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from worker import config
from worker.errors import SettingsError
from worker.intake import ARGUMENTS
from worker.portability.decision import DECISIONS
from worker.portability.events import CONTENT_TYPE, NUMBER_PORTED, CheckData, Envelope, PortedData
from worker.portability.records import AnsweredFrom, Status
from worker.portability.requests import Lane
from worker.publisher.messages import BATCH_CONTENT_TYPE
from worker.queues import QUEUE_ARGUMENTS, TASKS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def document() -> Any:
    return yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text("utf-8"))


def test_tasks_and_their_queues(document: Any) -> None:
    for lane in (Lane.RECHARGE, Lane.SMS):
        named = {name for name, task in TASKS.items() if task.lane is lane}
        assert set(document["channels"][lane]["messages"]) == named


@pytest.mark.parametrize(("schema", "lane"), [("precheck", Lane.RECHARGE), ("recheck", Lane.SMS)])
def test_arguments(document: Any, schema: str, lane: Lane) -> None:
    stated = document["components"]["schemas"][schema]
    assert set(stated["properties"]) == set(ARGUMENTS[lane])
    assert set(stated["required"]) == {
        name for name, argument in ARGUMENTS[lane].items() if argument.required
    }


def test_event_types(document: Any) -> None:
    sent = {f"{lane}.{decision}" for lane in (Lane.RECHARGE, Lane.SMS) for decision in DECISIONS[lane]}
    sent |= {NUMBER_PORTED}
    assert set(document["channels"]["events"]["messages"]) == sent | {f"{each}.batch" for each in sent}
    assert set(document["channels"]["events"]["messages"]) <= set(document["components"]["messages"])


def test_batches(document: Any) -> None:
    messages, schemas = document["components"]["messages"], document["components"]["schemas"]
    for name, batch in messages.items():
        if name.endswith(".batch"):
            alone = messages[name.removesuffix(".batch")]
            listed = schemas[batch["payload"]["$ref"].rpartition("/")[2]]
            assert (alone["contentType"], batch["contentType"]) == (CONTENT_TYPE, BATCH_CONTENT_TYPE)
            assert listed["items"] == alone["payload"]
            with pytest.raises(SettingsError, match="PRESEND_EVENT_BATCH"):
                config.load(event_batch=listed["maxItems"] + 1)
            assert config.load(event_batch=listed["maxItems"])


@pytest.mark.parametrize(("schema", "struct"), [("checkData", CheckData), ("portedData", PortedData)])
def test_event_data(document: Any, schema: str, struct: type[msgspec.Struct]) -> None:
    stated = document["components"]["schemas"][schema]
    assert list(stated["properties"]) == list(struct.__struct_fields__)
    assert stated["required"] == list(struct.__struct_fields__)


def test_envelope_and_words(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["envelope"]["required"] == list(Envelope.__struct_fields__)
    data = schemas["checkData"]["properties"]
    assert data["status"]["enum"] == [*Status, None]
    assert data["answered_from"]["enum"] == [*AnsweredFrom, None]


def test_the_readmes_recipe_declares_the_queues_as_the_worker_does() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for name, value in QUEUE_ARGUMENTS.items():
        assert f'"{name}": {value!r},'.replace("'", '"') in readme
