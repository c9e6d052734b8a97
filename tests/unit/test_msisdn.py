"""Mobile numbers as producers write them, and as people may see them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import Rejected
from worker.portability.msisdn import mask, mask_all, normalise

msisdns = st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True)


@st.composite
def written(draw: st.DrawFn) -> tuple[str, str]:
    """A number, and one way to write it."""
    msisdn = draw(msisdns)
    text = draw(st.sampled_from(["", "+86", "0086", "86"])) + msisdn
    gaps = draw(
        st.lists(st.sampled_from(["", "", "", " ", "-", " - "]), min_size=len(text), max_size=len(text))
    )
    return msisdn, "".join(gap + character for gap, character in zip(gaps, text, strict=True)) + gaps[0]


@given(written())
def test_every_way_to_write_a_number_gives_its_11_digits(case: tuple[str, str]) -> None:
    msisdn, text = case
    assert normalise(text) == msisdn


@pytest.mark.parametrize(
    "text",
    ["12", "12812345678", "23812345678", "1381234567", "138123456789", "86138123456789", "868613812345678",
     "0086", "+86", "013812345678", "1" * 5000],
)  # fmt: skip
def test_digits_that_cannot_be_a_mobile_number_are_not_one(text: str) -> None:
    assert normalise(text) is None


@pytest.mark.parametrize(
    "mobile",
    ["", "  ", "-", "1381234567a", "13812345678\n", "\t13812345678", "138\u00a012345678", "138.1234.5678",
     "+8513812345678", "13812345678+86", "++8613812345678", "１３８１２３４５６７８", "١٣٨١٢٣٤٥٦٧٨",
     13812345678, None, True, b"13812345678", ["13812345678"]],
)  # fmt: skip
def test_what_is_not_a_number_at_all_is_rejected_without_repeating_it(mobile: object) -> None:
    with pytest.raises(Rejected) as caught:
        normalise(mobile)
    assert caught.value.reason.startswith("mobile ")
    assert "1234" not in caught.value.reason


@given(st.text(alphabet="0123456789 -+68a１", max_size=20))
def test_any_text_is_a_number_or_none_or_rejected(text: str) -> None:
    try:
        found = normalise(text)
    except Rejected:
        digits = text.replace(" ", "").replace("-", "")
        assert not digits or not set(digits.removeprefix("+86")) <= set("0123456789")
    else:
        assert found is None or (
            len(found) == 11 and found[0] == "1" and found in text.replace(" ", "").replace("-", "")
        )


def test_mask_keeps_the_first_three_and_last_four() -> None:
    assert mask("13812345678") == "138****5678"
    assert mask("1381234567890") == "****"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("to 13812345678, 13912345679", "to 138****5678, 139****5679"),
        ("+8613812345678;008613812345678;8613812345678", "+86138****5678;0086138****5678;86138****5678"),
        ("+86 138-1234-5678 or 138 1234 5678", "+86 138****5678 or 138****5678"),
        ("138.1234.5678 took 138.12345678 s", "138****5678 took 138.12345678 s"),
        ('{"Mobile":"13812345678"} mobile=13812345678', '{"Mobile":"138****5678"} mobile=138****5678'),
        (
            "http://host/carrier?mobile=13812345678&apikey=x",
            "http://host/carrier?mobile=138****5678&apikey=x",
        ),
        ("手机13812345678停机", "手机138****5678停机"),
        ("手机１３８１２３４５６７８停机", "手机138****5678停机"),
        ("order 2026112413812345678001", "order 2026112413812345678001"),
        ("order 2026112413812345678", "order 2026112413812345678"),
        ("batch 0192f0c1-f138-1234-5678-f13912345678", "batch 0192f0c1-f138-1234-5678-f13912345678"),
        ("2026-11-24 13:00:00.138123 took 1381234 us", "2026-11-24 13:00:00.138123 took 1381234 us"),
    ],
)
def test_mask_all_hides_numbers_and_leaves_ids_and_times(text: str, masked: str) -> None:
    assert mask_all(text) == masked


@given(
    st.text(alphabet=st.characters(exclude_categories=["Nd", "Cs"])),
    msisdns,
    st.text(alphabet=st.characters(exclude_categories=["Nd", "Cs"])),
)
def test_mask_all_finds_a_number_in_any_text(before: str, msisdn: str, after: str) -> None:
    assert msisdn not in mask_all(before + msisdn + after)
