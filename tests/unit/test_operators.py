"""Names of operators: what messages say, what the provider says, what is stored."""

from __future__ import annotations

import pytest

from worker.errors import Rejected
from worker.portability import operators
from worker.portability.operators import Operator


@pytest.mark.parametrize(
    ("code", "short"), [("CMCC", "移动"), ("CUCC", "联通"), ("CTCC", "电信"), ("CBN", "广电")]
)
def test_an_operator_goes_by_code_short_and_full_name(code: str, short: str) -> None:
    for name in (code, code.lower(), code.title(), short, f"中国{short}", f" {code} "):
        assert operators.parse(name) == code
        assert type(operators.parse(name)) is str
    assert operators.of_label(short) == operators.of_label(f"中国{short}") == code
    assert operators.label_of(code) == Operator(code).short_name == short
    assert Operator(code).full_name == f"中国{short}"


@pytest.mark.parametrize("name", ["", "国移动", "China Mobile", "CMC", "13812345678", None, 1, ["CMCC"]])
def test_any_other_name_is_rejected_without_repeating_it(name: object) -> None:
    with pytest.raises(Rejected) as caught:
        operators.parse(name)
    assert "138" not in caught.value.reason


def test_an_unknown_label_is_kept_as_it_came() -> None:
    assert operators.of_label("卫星 ") == "卫星 "
    assert operators.label_of("卫星 ") == "卫星 "
    assert operators.of_label(None) is operators.of_label("") is None
    assert operators.label_of(None) == ""
