"""Events as their consumers read them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import NAMESPACE_URL, UUID, uuid5
from zoneinfo import ZoneInfo

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from worker.portability import events
from worker.portability.records import AnsweredFrom, CheckedRequest, PortChange, Status
from worker.portability.requests import Lane, RequestKey

ROW = CheckedRequest(
    source="shop",
    lane=Lane.SMS,
    reference="m-7",
    attempt=2,
    msisdn="13972565391",
    asked_operator="CMCC",
    failure_code="MK:0001",
    status=Status.PORTED,
    range_holder="CMCC",
    current_operator="CTCC",
    target_operator="CTCC",
    area="湖北-宜昌",
    observed_at=datetime(2026, 11, 24, 8, 0, 0, 120000, tzinfo=UTC),
    decision="reroute",
    reason="other_operator",
    answered_from=AnsweredFrom.LIVE,
    batch_id="b-1",
    call_id="c-1",
    event_id="7c2d6a52-6a2f-5b1c-8f53-0d4c7d5a3f10",
    received_at=datetime(2026, 11, 24, 7, 59, 59, tzinfo=UTC),
    decided_at=datetime(2026, 11, 24, 8, 0, 1, tzinfo=UTC),
)
BODY = """{"specversion":"1.0","id":"7c2d6a52-6a2f-5b1c-8f53-0d4c7d5a3f10","source":"presend/sms",\
"type":"sms.reroute","subject":"m-7","time":"2026-11-24T08:00:01.000000Z",\
"datacontenttype":"application/json","dataschema":"urn:presend:event:1",\
"data":{"lane":"sms","source":"shop","reference":"m-7","attempt":2,"mobile":"13972565391",\
"decision":"reroute","reason":"other_operator","status":"ported","area":"湖北-宜昌","range_holder":"CMCC",\
"current_operator":"CTCC","target_operator":"CTCC","observed_at":"2026-11-24T08:00:00.120000Z",\
"answered_from":"live","batch_id":"b-1"}}"""

moments = st.datetimes(min_value=datetime(2000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
zones = st.sampled_from(
    [UTC, ZoneInfo("Asia/Shanghai"), ZoneInfo("UTC"), timezone(timedelta(hours=-3, minutes=-30))]
)
words = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
rows = st.builds(
    CheckedRequest,
    source=words,
    lane=st.sampled_from([Lane.RECHARGE, Lane.SMS]),
    reference=st.from_regex(r"[A-Za-z0-9._:-]{1,128}", fullmatch=True),
    attempt=st.integers(1, 2**31),
    msisdn=st.none() | st.just("13812345678"),
    status=st.none() | st.sampled_from(Status),
    current_operator=st.none() | words,
    area=st.none() | words,
    observed_at=st.none() | moments,
    answered_from=st.none() | st.sampled_from(AnsweredFrom),
    decision=st.sampled_from(["confirmed", "reroute"]),
    event_id=st.uuids().map(str),
    received_at=moments,
    decided_at=moments,
)
keys = st.builds(RequestKey, words, st.sampled_from(Lane), words, st.integers(1, 10**6))


def test_a_decided_request_word_for_word() -> None:
    event = events.of_check(ROW)
    assert event.body.decode() == BODY
    assert (event.id, event.type, event.subject) == (ROW.event_id, "sms.reroute", "m-7")


def test_what_does_not_apply_is_null() -> None:
    bare = replace(
        ROW, source="", msisdn=None, status=Status.INVALID, area=None, range_holder=None,
        current_operator=None, target_operator=None, observed_at=None, answered_from=AnsweredFrom.RULE,
    )  # fmt: skip
    data = json.loads(events.of_check(bare).body)["data"]
    assert list(data) == list(json.loads(BODY)["data"])
    assert [name for name, value in data.items() if value is None] == [
        "mobile", "area", "range_holder", "current_operator", "target_operator", "observed_at",
    ]  # fmt: skip


def test_an_observed_change_word_for_word() -> None:
    before = datetime(2026, 11, 24, 8, 0, 0, 5, tzinfo=UTC)
    change = PortChange(
        "13972565391", "CMCC", "CTCC", before - timedelta(days=1), before, False, "b-1",
        events.port_event_id("13972565391", before),
    )  # fmt: skip
    event = events.of_port_change(change)
    assert event.body.decode() == (
        f'{{"specversion":"1.0","id":"{change.event_id}","source":"presend/portability",'
        '"type":"number.ported","subject":"13972565391","time":"2026-11-24T08:00:00.000005Z",'
        '"datacontenttype":"application/json","dataschema":"urn:presend:event:1",'
        '"data":{"mobile":"13972565391","donor":"CMCC","recipient":"CTCC",'
        '"observed_after":"2026-11-23T08:00:00.000005Z","observed_before":"2026-11-24T08:00:00.000005Z",'
        '"doubtful":false,"batch_id":"b-1"}}'
    )
    assert (event.id, event.type, event.subject) == (change.event_id, "number.ported", "13972565391")
    assert JSONFormat().read(CloudEvent, event.body).get_type() == "number.ported"


@given(rows, zones)
def test_a_row_read_back_in_any_zone_gives_the_same_bytes(row: CheckedRequest, zone: ZoneInfo) -> None:
    read_back = replace(
        row,
        decided_at=row.decided_at.astimezone(zone),
        observed_at=row.observed_at and row.observed_at.astimezone(zone),
    )
    assert events.of_check(read_back) == events.of_check(row)


@given(rows)
def test_every_body_is_a_cloudevent_that_carries_the_check_data(row: CheckedRequest) -> None:
    event = events.of_check(row)
    read = JSONFormat().read(CloudEvent, event.body)
    assert (read.get_specversion(), read.get_id(), read.get_type()) == ("1.0", row.event_id, event.type)
    assert (read.get_source(), read.get_subject()) == (f"presend/{row.lane}", row.reference)
    assert (read.get_time(), read.get_dataschema()) == (row.decided_at, "urn:presend:event:1")
    assert read.get_data() == events.check_data(row)
    assert (
        event.body == json.dumps(json.loads(event.body), ensure_ascii=False, separators=(",", ":")).encode()
    )


def test_check_data_is_plain_json_for_direct_rows_too() -> None:
    data = events.check_data(replace(ROW, lane=Lane.DIRECT))
    assert data["lane"] == "direct"
    assert {type(value) for value in data.values()} == {str, int}


def test_a_direct_row_has_no_event() -> None:
    with pytest.raises(ValueError, match="direct"):
        events.of_check(replace(ROW, lane=Lane.DIRECT))


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        events.rfc3339(datetime(2026, 11, 24))  # noqa: DTZ001


@given(keys, keys)
def test_an_event_id_names_one_key(one: RequestKey, other: RequestKey) -> None:
    assert (events.event_id(one) == events.event_id(other)) == (one == other)


def test_event_ids_never_change() -> None:
    assert uuid5(NAMESPACE_URL, "urn:presend:event") == events.NAMESPACE
    key = RequestKey("商城", Lane.RECHARGE, "o-1", 2)
    assert events.event_id(key) == str(uuid5(events.NAMESPACE, '["商城","recharge","o-1",2]'))
    assert UUID(events.event_id(key)).version == 5
    assert events.event_id(RequestKey("a", Lane.SMS, "b:c", 1)) != events.event_id(
        RequestKey("a:b", Lane.SMS, "c", 1)
    )
    at = datetime(2026, 11, 24, 16, tzinfo=ZoneInfo("Asia/Shanghai"))
    assert events.port_event_id("13812345678", at) == str(
        uuid5(events.NAMESPACE, '["13812345678","2026-11-24T08:00:00.000000Z"]')
    )
