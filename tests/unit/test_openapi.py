"""docs/openapi.yaml says what the code says; ``make openapi`` holds it to a running front door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml

from worker.carrier.protocol import Answer, Balance, FeeType
from worker.carrier.server import InThreads, carrier_app
from worker.carrier.wire import answering
from worker.carrier.wire.codes import Code
from worker.portability.records import Status

DOCUMENT = yaml.safe_load((Path(__file__).parents[2] / "docs" / "openapi.yaml").read_text("utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]
ANSWER = Answer("13972565391", 0, Status.PORTED, "CMCC", "CTCC", "湖北-宜昌")


def fields(name: str) -> list[str]:
    """An answer's fields, in the order the document tells them."""
    return list(SCHEMAS[name]["properties"]["result"]["properties"])


def result(answer: bytes) -> Any:
    decoded = msgspec.json.decode(answer)
    return (decoded[0] if isinstance(decoded, list) else decoded)["result"]


def test_paths_and_methods_are_those_served() -> None:
    served = {
        route.path: set(route.methods) & {"GET", "POST"}  # type: ignore[attr-defined]
        for route in carrier_app(InThreads(lambda _key: None)).routes  # type: ignore[arg-type,return-value]
    }
    told = {path: {method.upper() for method in methods} for path, methods in DOCUMENT["paths"].items()}
    assert told == served | {"/carrier_batch": {"POST"}}, "GET of a batch is served its -7"


def test_every_code_is_told() -> None:
    assert {*SCHEMAS["Refused"]["properties"]["code"]["enum"], 0} == set(Code)


def test_fields_are_told_as_they_are_written() -> None:
    assert list(result(answering.write_single(ANSWER))) == fields("Found")
    assert list(result(answering.write_batch([ANSWER]))) == fields("FoundInBatch")
    assert list(result(answering.write_balance(Balance(FeeType.PREPAID, 1)))) == fields("Balance")
