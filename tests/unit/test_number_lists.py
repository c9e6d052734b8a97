"""A caller's list: encodings, separators, the column found or chosen, and each bad row explained."""

from __future__ import annotations

import io

import pytest

from worker.errors import ListRefused
from worker.serve.jobs import lists
from worker.serve.jobs.lists import NumberList, Wrong
from worker.storage.jobs import Piece

ONE, TWO, THREE = "13800138000", "13900139000", "13700137000"


def read(content: str | bytes, **options: str) -> tuple[str, list[Piece]]:
    given = NumberList(io.BytesIO(content.encode() if isinstance(content, str) else content), **options)
    return given.column, list(given.pieces())


def numbers(content: str | bytes, **options: str) -> list[int]:
    return [each for piece in read(content, **options)[1] for each in piece.msisdns]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_spreadsheets_exports_are_read_as_they_come(encoding: str, separator: str) -> None:
    rows = [["姓名", "手机号", "金额"], ["张三", ONE, "30"], ["李四", f"+86 {TWO}", "50"]]
    content = "\r\n".join(separator.join(row) for row in rows).encode(encoding)
    column, (piece,) = read(content)
    assert (column, piece.lines, piece.refs) == ("手机号", [2, 3], [0, 1])
    assert piece.msisdns == [int(ONE), int(TWO)]


def test_a_plain_list_needs_no_heading() -> None:
    column, (piece,) = read(f"{ONE}\n\n{TWO}\n{ONE}\n")
    assert (column, piece.lines, piece.refs, len(piece.msisdns)) == ("1", [1, 3, 4], [0, 1, 0], 2)


def test_what_is_pasted_may_be_in_one_line() -> None:
    given = NumberList(lists.of_pasted(f"{ONE}, {TWO}；{THREE}"))
    assert [piece.msisdns for piece in given.pieces()] == [[int(ONE), int(TWO), int(THREE)]]


@pytest.mark.parametrize("space", [" ", "  ", "\u3000"])
def test_pasted_numbers_are_separated_by_spaces_but_one_number_may_be_grouped(space: str) -> None:
    given = NumberList(
        lists.of_pasted(f"{ONE}{space}{TWO}{space}+86 137 0013 7000 139-7256-5391\n139 7256 5392")
    )
    (piece,) = given.pieces()
    assert piece.msisdns == [int(ONE), int(TWO), int(THREE), 13972565391, 13972565392]
    assert not piece.errors


@pytest.mark.parametrize(
    "cell", ["１３８００１３８０００", f"{ONE}.0", f'="{ONE}"', f'"=""{ONE}"""', "１３８ ００１３ ８０００"]
)
def test_numbers_are_read_as_spreadsheets_and_chinese_keyboards_write_them(cell: str) -> None:
    assert numbers(cell) == numbers(f"name,phone\nmei,{cell}") == [int(ONE)]


def test_each_bad_row_is_told_by_line_with_what_came_and_why() -> None:
    rows = [
        ("名字,手机", None),
        (f"a,{ONE}", None),
        ("b,", Wrong.EMPTY),
        ("c", Wrong.EMPTY),
        ("d,1380013800", Wrong.LENGTH),
        ("e,12800138000", Wrong.PREFIX),
        ("f,1.38E+10", Wrong.SHORTENED),
        ("g,138O0138000", Wrong.CHARACTERS),
        (f"g,{ONE}.5", Wrong.CHARACTERS),
        ("g,１３８００１３８", Wrong.LENGTH),
        (f'h,"{TWO}', Wrong.QUOTE),
        (f'i,"\u202d{TWO}\u202c"', None),
    ]
    _, (piece,) = read("\n".join(text for text, _ in rows))
    assert [(line, why) for line, _, why in piece.errors] == [
        (line, why) for line, (_, why) in enumerate(rows, start=1) if why
    ]
    assert piece.errors[2] == (5, "1380013800", Wrong.LENGTH)
    assert piece.msisdns == [int(ONE), int(TWO)]


def test_a_number_is_asked_once_however_far_apart_its_rows_are() -> None:
    many = [f"139{n:08d}" for n in range(2500)]
    _, pieces = read("\n".join([*many[:1000], many[999], *many[1000:], *many, ONE, many[0]]))
    assert [len(piece.msisdns) for piece in pieces] == [1000, 1000, 501]
    refs = [ref for piece in pieces for ref in piece.refs]
    assert refs == [*range(1000), 999, *range(1000, 2500), *range(2500), 2500, 0]
    assert [line for piece in pieces for line in piece.lines] == list(range(1, 5004))


def test_of_two_columns_with_numbers_the_heading_or_the_caller_chooses() -> None:
    assert numbers(f"kept,mobile\n{ONE},{TWO}") == [int(TWO)]
    two = f"手机,备用手机\n{ONE},{TWO}"
    with pytest.raises(ListRefused, match="which_column") as refused:
        numbers(two)
    assert refused.value.values == {"columns": "1 手机, 2 备用手机"}
    assert numbers(two, column="2") == numbers(two, column="备用手机") == [int(TWO)]


@pytest.mark.parametrize(
    ("content", "code", "column"),
    [
        (b"", "empty", ""),
        (b"\n , \n", "empty", ""),
        (b"name,age\nmei,30", "no_numbers", ""),
        (b"PK\x03\x04rest", "workbook", ""),
        (b"13800138000\0", "not_text", ""),
        (b"\x81\xff\xff13800138000", "encoding", ""),
        (b"a,b\n1,13800138000", "no_such_column", "mobile"),
        (b"13800138000\n" + b"9" * 70_000, "long_line", ""),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_word_for_it(content: bytes, code: str, column: str) -> None:
    with pytest.raises(ListRefused) as refused:
        read(content, column=column)
    assert refused.value.code == code


def test_a_list_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MOST_ROWS", 2)
    assert len(numbers(f"h\n{ONE}\n{TWO}")) == 2
    with pytest.raises(ListRefused, match="too_many_rows"):
        numbers(f"{ONE}\n{TWO}\n{ONE}")
