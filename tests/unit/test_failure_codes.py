"""Delivery-report codes in all their spellings."""

from __future__ import annotations

import csv
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import SettingsError
from worker.portability.failure_codes import NOT_ASKED, FailureClass, FailureCodes

CODES = FailureCodes.shipped()


@pytest.mark.parametrize(
    ("operator", "failure_class", "spellings"),
    [
        ("CMCC", "ported", "NP:0001 np:x NP0001 MH:0007"),
        ("CMCC", "absent_subscriber", "MK:0001 MK0001 MK00001 mk:1 XL:169 XL169 SME169 RP:1 RP:0001 LT:0012"),
        ("CMCC", "no_route", "NOROUTE NONCHN MB:1078 R1:0006 R10006 TD:18 TD:0018"),
        ("CMCC", "barred", "MK:0005 MI:0013 CB:0005"),
        ("CMCC", "unreachable", "EXPIRED EXPIRED:0 EXPIRED_003 MI:0024 MK:0010 IC:0055"),
        ("CMCC", "network", "IA:0054 ia0054 CA:0111 DA:0001 TIMEOUT ID:0070"),
        ("CMCC", "refused", "KEYWORD W-BLACK M:BLACK HD:0001 HD:19 HD0019 MA:0002 XA:0001 MK:0115"),
        ("CMCC", "throttled", "IB:0008 BEYONDM DB:9007 DB:0142 MI:0061"),
        ("CMCC", "undetermined", "UNDELIV UNDELIV_999 REJECTD MK:0999 MN:0999 MI:0999 54 601 -43 FOO 移动 *"),
        ("CUCC", "absent_subscriber", "1 01 SGIP:1 2:1 SGIP:101 101"),
        ("CUCC", "barred", "5 SGIP:5 2:005 99"),
        ("CUCC", "unreachable", "54 SGIP:54 SGIP54 sgip:54 2:54 SGIP_54 -43 2:-43 SGIP:-37 182"),
        ("CUCC", "refused", "69 2:69"),
        ("CUCC", "undetermined", "601 2 100 999"),
        ("CTCC", "absent_subscriber", "601 UNDELIV_601 UNDELIV:601 undeliv:601 EXPIRED:701 771 REJECTD_640"),
        ("CTCC", "barred", "705 UNDELIV_705"),
        ("CTCC", "unreachable", "EXPIRED:602 EXPIRED_602 2:54"),
        ("CTCC", "undetermined", "602 54 UNDELIV:602 UNDELIV_602"),
        (None, "undetermined", "54 601"),
        (None, "unreachable", "SGIP:54"),
        (None, "absent_subscriber", "UNDELIV_601"),
    ],
)  # fmt: skip
def test_a_code_is_classed_in_each_spelling(operator: str | None, failure_class: str, spellings: str) -> None:
    classed = {code: CODES.classify(code, operator) for code in spellings.split()}
    assert classed == dict.fromkeys(classed, FailureClass(failure_class))


@given(
    prefix=st.sampled_from(["MK", "MN", "MI", "DB", "CB", "MB"]),
    number=st.integers(0, 9999),
    colon=st.booleans(),
    width=st.integers(1, 7),
    case=st.sampled_from([str.upper, str.lower, str.title]),
)
def test_zeros_colon_and_case_never_change_a_class(prefix, number, colon, width, case) -> None:
    spelling = case(prefix) + (":" if colon else "") + str(number).zfill(width)
    assert CODES.classify(spelling, "CMCC") is CODES.classify(f"{prefix}:{number:04}", "CMCC")


@given(number=st.integers(-50, 999), operator=st.sampled_from(["CMCC", "CUCC", "CTCC", "CBN", None]))
def test_a_bare_number_means_what_its_operators_own_spelling_means(number: int, operator: str | None) -> None:
    bare = CODES.classify(str(number), operator)
    if operator == "CUCC":
        assert bare is CODES.classify(f"SGIP:{number}", None) is CODES.classify(f"2:{number}", "CMCC")
    elif operator == "CTCC" and number >= 0:
        assert bare is CODES.classify(f"UNDELIV_{number:03}", None)
    elif operator != "CTCC":
        assert bare is FailureClass.UNDETERMINED


@given(st.one_of(st.none(), st.text()), st.sampled_from(["CMCC", "CUCC", "CTCC", None]))
def test_any_text_has_a_class(code: str | None, operator: str | None) -> None:
    assert isinstance(CODES.classify(code, operator), FailureClass)


def test_every_shipped_row_decides_its_own_code() -> None:
    table = resources.files("worker.portability").joinpath("failure_codes.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    assert len(rows) == 170
    for row in rows:
        code = row["code"].replace("*", "99X")
        assert CODES.classify(code, row["operator"] or "CMCC") == row["class"], row


def test_no_code_and_overlong_digits_are_undetermined() -> None:
    for code in (None, "", "  ", "9" * 10_000):
        assert CODES.classify(code, "CUCC") is FailureClass.UNDETERMINED


def test_which_failures_last_and_which_are_not_asked() -> None:
    assert {each for each in FailureClass if each.permanent} == {"absent_subscriber", "barred", "refused"}
    assert {"refused", "throttled"} == NOT_ASKED


def test_a_users_file_overrides_and_extends() -> None:
    mine = CODES.overridden_by(
        "\ufeffCode,Class,operator,note\n"
        "MK0001,refused,,seen 2026-10\n"
        "\n"
        "55,NETWORK,中国联通,\n"
        "MY:*,barred,,\n"
        "MY:01*,network,,\n"
        "MY:0101,throttled\n"
        "7*,no_route,CTCC,\n"
        "UNDELIV_601,barred,,\n"
    )
    expected = {
        ("MK:0001", "CMCC"): "refused",
        ("MK:0012", "CMCC"): "absent_subscriber",
        ("2:55", "CUCC"): "network",
        ("55", "CTCC"): "undetermined",
        ("MY0001", "CMCC"): "barred",
        ("MY0102", "CMCC"): "network",
        ("MY101", "CMCC"): "throttled",
        ("799", "CTCC"): "no_route",
        ("701", "CTCC"): "absent_subscriber",
        ("UNDELIV:601", "CTCC"): "barred",
        ("601", "CTCC"): "absent_subscriber",
    }
    assert {case: mine.classify(*case).value for case in expected} == expected
    assert CODES.classify("MK:0001", "CMCC") is FailureClass.ABSENT_SUBSCRIBER


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("MK:1,,refusd,", "line 3: class 'refusd' is none of ported,"),
        ("MK:1,refused", "line 3: class ''"),
        (",,refused,", "line 3: code is empty"),
        ("M*K,,refused,", r"line 3: \* may only stand at the end"),
        ("54,,refused,", "line 3: a bare number needs the operator"),
        ("54,Vodafone,refused,", "line 3: operator must be one of"),
        ("MK:1,CMCC,refused,", "line 3: only a bare number belongs to an operator"),
        ("MK:1,,refused,\nMK00001,,barred,", "line 4: the same code as in line 3"),
        ('"MK:1"x,,refused,', "line 3: "),
    ],
)
def test_a_bad_row_is_named_by_line(rows: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=f"^PRESEND_FAILURE_CODES, {complaint}"):
        CODES.overridden_by("code,operator,class,note\nOK,,network,\n" + rows + "\n")


@pytest.mark.parametrize("text", ["", "MK:0001,,refused\n", "code;operator;class\n"])
def test_a_file_without_the_columns_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="line 1: no column"):
        CODES.overridden_by(text)
