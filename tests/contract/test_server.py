"""Which code answers which request: the document, and docs/provider-contract.md where it is silent."""

from __future__ import annotations

import json
from codecs import BOM_UTF8

import anyio
import httpx
import pytest

from tests.contract.conftest import Served
from worker.carrier.protocol import CarrierLookup, FeeType
from worker.carrier.server import InThreads, carrier_app
from worker.carrier.wire.codes import Code
from worker.sandbox.faults import Fault
from worker.sandbox.provider import DEFAULT_APIKEY, Account

KEY = DEFAULT_APIKEY
MOBILE = "13972565391"
FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}
NUL_OBJECT = b"{\x00}"


def code_of(response: httpx.Response) -> int:
    assert response.status_code == 200
    document = response.json()
    assert document["reason"] == Code(document["code"]).reason
    assert ("result" in document) == (document["code"] == 0)
    assert isinstance(document["code"], int)
    return document["code"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"apikey": KEY, "mobile": MOBILE}, 0),
        ({"apikey": KEY}, 1),
        ({"mobile": MOBILE}, 1),
        ({}, 1),
        ({"apikey": KEY, "mobile": ""}, 1),
        ({"apikey": "", "mobile": MOBILE}, 1),
        ({"apikey": KEY[:31], "mobile": MOBILE}, 1),
        ({"apikey": KEY + "0", "mobile": MOBILE}, 1),
        ({"ApiKey": KEY, "mobile": MOBILE}, 1),
        ({"apikey": KEY, "Mobile": MOBILE}, 1),
        ({"apikey": KEY, "MOBILE": MOBILE}, 1),
        ({"apikey": "0" * 32, "mobile": MOBILE}, -1),
        ({"apikey": "0" * 32, "mobile": "1"}, -1),
        ({"apikey": KEY.upper(), "mobile": MOBILE}, -1),
        ({"apikey": KEY, "mobile": "1397256539"}, -2),
        ({"apikey": KEY, "mobile": "139725653911"}, -2),
        ({"apikey": KEY, "mobile": "+8613972565391"}, -2),
        ({"apikey": KEY, "mobile": " 13972565391"}, -2),
        ({"apikey": KEY, "mobile": "12972565391"}, -3),
        ({"apikey": KEY, "mobile": "1397256539a"}, -3),
        ({"apikey": KEY, "mobile": "1397256539１"}, -3),
        ({"apikey": KEY, "mobile": "14112345678"}, -3),
    ],
)
def test_single(served: Served, method: str, params: dict[str, str], code: int) -> None:
    sent = {"params": params} if method == "GET" else {"data": params}
    assert code_of(served.web.request(method, f"{served.url}/carrier", **sent)) == code


@pytest.mark.parametrize(
    ("content", "headers", "code"),
    [
        (json.dumps({"apikey": KEY, "mobile": MOBILE}), JSON, 0),
        (json.dumps({"apikey": KEY, "mobile": int(MOBILE)}), JSON, 0),
        (json.dumps({"apikey": KEY, "mobile": MOBILE}), FORM, 0),
        (json.dumps({"apikey": KEY, "mobile": [MOBILE]}), JSON, 1),
        (json.dumps([KEY, MOBILE]), JSON, -9),
        ("{", JSON, -9),
        (BOM_UTF8 + json.dumps({"apikey": KEY, "mobile": MOBILE}).encode(), JSON, 0),
        (BOM_UTF8 + json.dumps({"apikey": KEY, "mobile": MOBILE}).encode(), FORM, 0),
        (b"\xff\xfe", JSON, -9),
        (b"\xff\xfe", FORM, 1),
        ("x" * 300_000, FORM, 1),
    ],
)
def test_single_by_body(served: Served, content: str | bytes, headers: dict[str, str], code: int) -> None:
    assert code_of(served.web.post(f"{served.url}/carrier", content=content, headers=headers)) == code


def test_the_body_of_a_post_goes_before_its_query(served: Served) -> None:
    url = f"{served.url}/carrier?apikey={KEY}&mobile=1"
    assert code_of(served.web.post(url, data={"mobile": MOBILE})) == 0


def test_a_body_too_long_is_refused_though_it_is_well_formed(served: Served) -> None:
    padding = {"padding": "x" * 300_000}
    single = served.web.post(f"{served.url}/carrier", data={"apikey": KEY, "mobile": MOBILE} | padding)
    assert code_of(single) == 1
    batch = {"ApiKey": KEY, "PhoneNumbers": [MOBILE]} | padding
    assert code_of(served.web.post(f"{served.url}/carrier_batch", json=batch)) == -10


def batch_body(*mobiles: object, apikey: object = KEY) -> bytes:
    return json.dumps({"ApiKey": apikey, "PhoneNumbers": mobiles}).encode()


@pytest.mark.parametrize(
    ("content", "headers", "code"),
    [
        (batch_body(), JSON, 1),
        (b"{}", JSON, 1),
        (json.dumps({"ApiKey": KEY}).encode(), JSON, 1),
        (json.dumps({"PhoneNumbers": [MOBILE]}).encode(), JSON, 1),
        (json.dumps({"apikey": KEY, "PhoneNumbers": [MOBILE]}).encode(), JSON, 1),
        (json.dumps({"ApiKey": KEY, "phonenumbers": [MOBILE]}).encode(), JSON, 1),
        (json.dumps({"ApiKey": KEY, "PhoneNumbers": MOBILE}).encode(), JSON, 1),
        (batch_body(MOBILE, apikey="short"), JSON, 1),
        (batch_body(MOBILE, apikey=7), JSON, 1),
        (batch_body(MOBILE, apikey="0" * 32), JSON, -1),
        (b"apikey=x&mobile=1", FORM, -7),
        (b"", FORM, -7),
        (b"", JSON, -9),
        (b"[]", JSON, -9),
        (b'{"ApiKey":', JSON, -9),
        (NUL_OBJECT, JSON, -9),
        (b"[" * 100_000, JSON, -9),
        (batch_body(*[MOBILE] * 1001), JSON, -10),
        (batch_body(*[MOBILE] * 1001, apikey="0" * 32), JSON, -1),
        (batch_body(*[MOBILE] * 30_000), JSON, -10),
    ],
)
def test_a_batch_refused_whole(served: Served, content: bytes, headers: dict[str, str], code: int) -> None:
    response = served.web.post(f"{served.url}/carrier_batch", content=content, headers=headers)
    assert code_of(response) == code
    assert served.sandbox.bill.billed == 0


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_a_batch_is_posted(served: Served, method: str) -> None:
    response = served.web.request(
        method, f"{served.url}/carrier_batch", params={"apikey": KEY, "mobile": MOBILE}
    )
    assert code_of(response) == -7


def test_a_batch_answers_every_number_in_order_duplicates_too(served: Served) -> None:
    mobiles = [MOBILE, "1", "13798361236", "12345678901", MOBILE, 13798361236, None, "", ["x"]]
    items = served.web.post(f"{served.url}/carrier_batch", content=batch_body(*mobiles)).json()
    assert [item["code"] for item in items] == [0, -2, 0, -3, 0, 1, 1, 1, 1]
    assert [item["result"]["Mobile"] for item in items if "result" in item] == [MOBILE, "13798361236", MOBILE]
    assert served.sandbox.bill.billed == 2


def test_a_batch_may_begin_with_a_byte_order_mark(served: Served) -> None:
    sent = served.web.post(f"{served.url}/carrier_batch", content=BOM_UTF8 + batch_body(MOBILE), headers=FORM)
    assert [item["code"] for item in sent.json()] == [0]


@pytest.mark.parametrize("path", ["/carrier", "/balance"])
@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_neither_answered_nor_charged(served: Served, path: str, method: str) -> None:
    response = served.web.request(method, f"{served.url}{path}", params={"apikey": KEY, "mobile": MOBILE})
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == {"GET", "POST"}
    assert served.sandbox.bill.billed == 0


def test_a_batch_of_exactly_1000_is_answered(served: Served) -> None:
    mobiles = [f"139725{number:05d}" for number in range(1000)]
    items = served.web.post(f"{served.url}/carrier_batch", content=batch_body(*mobiles), headers=FORM).json()
    assert len(items) == 1000


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("params", "code"), [({"apikey": KEY}, 0), ({}, 1), ({"apikey": "x"}, 1), ({"apikey": "0" * 32}, -1)]
)
def test_balance(served: Served, method: str, params: dict[str, str], code: int) -> None:
    sent = {"params": params} if method == "GET" else {"data": params}
    assert code_of(served.web.request(method, f"{served.url}/balance", **sent)) == code


def test_the_accounts_own_codes(served: Served) -> None:
    def single() -> int:
        return code_of(served.web.post(f"{served.url}/carrier", data={"apikey": KEY, "mobile": MOBILE}))

    served.sandbox.put_account(Account(KEY, FeeType.PREPAID, 0))
    assert single() == -5
    served.sandbox.put_account(Account(KEY, disabled=True))
    assert single() == -6
    served.sandbox.put_account(Account(KEY))
    served.sandbox.faults.add(Fault(kind="code", code=-8))
    assert single() == -8
    assert single() == 0


def test_a_defect_of_the_look_up_is_told_as_a_system_error() -> None:
    def broken(apikey: str) -> CarrierLookup:
        raise RuntimeError(apikey)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(carrier_app(InThreads(broken)), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/carrier", data={"apikey": KEY, "mobile": MOBILE})

    assert code_of(anyio.run(ask)) == -8
