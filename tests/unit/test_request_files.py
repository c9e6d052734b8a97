"""CSV files of requests: what becomes an item, what is told of a bad row, what refuses a file."""

from __future__ import annotations

from io import BytesIO

import pytest

from worker.errors import RequestFileError
from worker.portability.requests import Lane
from worker.producing.request_files import RequestFile, Row

HEADER = "message_id,mobile,operator,attempt,source,failure_code,failed_at\n"


def rows_of(text: str | bytes, lane: Lane = Lane.SMS, **options: str) -> list[Row]:
    raw = text.encode() if isinstance(text, str) else text
    return list(RequestFile(BytesIO(raw), lane, **options).rows())


def only(text: str, **options: str) -> Row:
    (row,) = rows_of(HEADER + text, **options)
    return row


def test_a_full_row_is_the_tasks_arguments() -> None:
    row = only("m1,13972565391,移动,2,gw,DB:0108,2026-11-24T09:30:00+08:00\n")
    assert row.item == {
        "message_id": "m1",
        "mobile": "13972565391",
        "operator": "移动",
        "attempt": 2,
        "source": "gw",
        "failure_code": "DB:0108",
        "failed_at": "2026-11-24T09:30:00+08:00",
    }


def test_empty_cells_are_left_out() -> None:
    assert only("m1,13972565391,CMCC,,,,\n").item == {
        "message_id": "m1",
        "mobile": "13972565391",
        "operator": "CMCC",
    }


def test_a_source_is_for_rows_that_name_none() -> None:
    rows = rows_of(HEADER + "m1,13972565391,CMCC,,own,,\nm2,13972565391,CMCC,,,,\n", source="mine")
    assert [row.item and row.item["source"] for row in rows] == ["own", "mine"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_a_bom_are_taken_off(end: str, bom: bytes) -> None:
    text = HEADER.replace("\n", end) + f"m1,13972565391,联通,,,,{end}"
    (row,) = rows_of(bom + text.encode())
    assert row.item == {"message_id": "m1", "mobile": "13972565391", "operator": "联通"}


def test_gb18030_is_read_where_it_is_asked_for() -> None:
    text = HEADER + "m1,13972565391,中国电信,,,,\n"
    (row,) = rows_of(text.encode("gb18030"), encoding="gb18030")
    assert row.item is not None
    assert row.item["operator"] == "中国电信"


def test_a_bom_outweighs_the_encoding_asked_for() -> None:
    text = HEADER + "m1,13972565391,电信,,,,\n"
    (row,) = rows_of(b"\xef\xbb\xbf" + text.encode(), encoding="gb18030")
    assert row.item is not None
    assert row.item["operator"] == "电信"


def test_another_encoding_is_named() -> None:
    raw = (HEADER + "m1,13972565391,移动,,,,\n").encode("gb18030")
    with pytest.raises(RequestFileError, match="line 2 is not UTF-8: try --encoding gb18030"):
        rows_of(raw)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("m1,1397256539x,移动,,,,\n", "mobile holds other characters"),
        ("m1,1.39726E+10,移动,,,,\n", "mobile holds other characters"),
        ("m1,,移动,,,,\n", "argument mobile is missing"),
        ("m1,13972565391,,,,,\n", "argument operator is missing"),
        ("m1,13972565391,Vodafone,,,,\n", "operator must be one of"),
        ("m 1,13972565391,移动,,,,\n", "message_id must be"),
        ("m1,13972565391,移动,two,,,\n", "attempt must be a whole number"),
        ("m1,13972565391,移动,0,,,\n", "attempt must be a whole number from 1"),
        ("m1,13972565391,移动,,,,yesterday\n", "failed_at must be an RFC 3339 time"),
        ("m1,13972565391,移动,,,,,13972565391\n", "8 cells, but 7 columns"),
        ('"m1,13972565391,移动,,,,\n', "a quotation mark is not closed"),
    ],
)
def test_a_bad_row_says_why_and_where_and_holds_nobody_back(text: str, reason: str) -> None:
    rows = rows_of(HEADER + "m0,13972565391,移动,,,,\n" + text + "m2,13972565391,移动,,,,\n")
    assert [row.line for row in rows if row.item is None] == [3]
    assert [row.line for row in rows if row.item is not None] == [2, 4]
    assert reason in (rows[1].reason or "")


def test_a_reason_never_holds_a_number() -> None:
    text = "".join(f"{cells}\n" for cells in ("13972565391,x,移动", "m1,13972565391,13972565391"))
    for row in rows_of(HEADER + text):
        assert row.item is None
        assert "13972565391" not in (row.reason or "")


def test_x_columns_are_ignored_and_blank_lines_left_out() -> None:
    rows = rows_of("order_id,mobile,x_note\no1,13972565391,hello\n\n,,\no2,13972565391,\n", Lane.RECHARGE)
    assert [row.item for row in rows] == [
        {"order_id": "o1", "mobile": "13972565391"},
        {"order_id": "o2", "mobile": "13972565391"},
    ]
    assert [row.line for row in rows] == [2, 5]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no header"),
        (b"\n", "no header"),
        (b"message_id;mobile;operator\n", "separated by commas"),
        (b"message_id\tmobile\toperator\n", "separated by commas"),
        (b"message_id,mobile,operator,phone\n", "unknown column 'phone'"),
        (b"message_id,mobile\n", "column operator is missing"),
        (b"message_id,mobile,operator,mobile\n", "column mobile is there twice"),
        ("message_id,mobile,operator\n".encode("utf-16"), "UTF-16"),
        (b"x" * 100_000, "overlong"),
    ],
)
def test_a_file_of_another_kind_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(RequestFileError, match=words):
        RequestFile(BytesIO(raw), Lane.SMS)


def test_reading_goes_on_at_any_rows_end() -> None:
    raw = (HEADER + "m1,13972565391,移动,,,,\r\n\nm2,13972565391,联通,,,,\nm3,13972565391,电信,,,,").encode()
    rows = rows_of(raw)
    assert rows[-1].end == len(raw)
    for at, row in enumerate(rows):
        again = RequestFile(BytesIO(raw), Lane.SMS)
        again.skip_to(line=row.line, end=row.end)
        assert list(again.rows()) == rows[at + 1 :]
