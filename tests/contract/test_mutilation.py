"""However a batch answer is mutilated, no number gets another number's answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.carrier.protocol import Answer, Unanswered
from worker.carrier.wire import answering, asking
from worker.errors import CarrierError
from worker.portability.records import Status

OPERATORS = ["CMCC", "CUCC", "CTCC", "CBN"]


def truth_of(index: int) -> Answer:
    """Every number's answer is its own: the area names the number."""
    msisdn = f"139{index:08d}"
    if index % 7 == 3:
        return Answer(msisdn, -4, Status.UNKNOWN)
    if index % 7 == 5:
        return Answer(msisdn, -3, Status.INVALID)
    holder, current = OPERATORS[index % 4], OPERATORS[index // 4 % 4]
    status = Status.NOT_PORTED if holder == current else Status.PORTED
    return Answer(msisdn, 0, status, holder, current, f"省-{index}")


@dataclass
class Mutilated:
    """What was asked, and the items that came back."""

    asked: list[str]
    items: list[dict[str, object]]
    steps: list[str] = field(default_factory=list)


ACTIONS = ["drop", "duplicate", "swap", "foreign", "bare", "unnamed", "refuse", "nothing", "text"]


@st.composite
def mutilations(draw: st.DrawFn) -> Mutilated:
    indexes = draw(st.lists(st.integers(0, 60), min_size=1, max_size=12, unique=True))
    truths = [truth_of(index) for index in indexes]
    mutilated = Mutilated([truth.msisdn for truth in truths], json.loads(answering.write_batch(truths)))
    for action in draw(st.lists(st.sampled_from(ACTIONS), max_size=5)):
        mutilated.steps.append(action)
        if mutilated.items:
            mutilate(mutilated.items, action, draw)
    return mutilated


def mutilate(items: list[dict[str, object]], action: str, draw: st.DrawFn) -> None:
    places = st.integers(0, len(items) - 1)
    at, other = draw(places), draw(places)
    if action == "drop":
        del items[at]
    elif action == "duplicate":
        items.insert(other, items[at])
    elif action == "swap":
        items[at], items[other] = items[other], items[at]
    elif action == "foreign":
        items.insert(other, json.loads(answering.write_batch([truth_of(61 + 4 * other)]))[0])
    elif action == "bare":
        items[at] = {name: value for name, value in items[at].items() if name != "result"}
    elif action == "unnamed" and isinstance(items[at].get("result"), dict):
        result = {name: value for name, value in items[at]["result"].items() if name != "Mobile"}  # type: ignore[attr-defined]
        items[at] = items[at] | {"result": result}
    elif action == "refuse":
        items[at] = {"code": -8, "reason": ""}
    elif action == "text":
        items[at] = items[at] | {"code": "?"}


def looks_whole(mutilated: Mutilated) -> bool:
    """Whether nobody could tell that items without a number have moved: all others are in place."""
    named = [
        result.get("Mobile") if isinstance(result := item.get("result"), dict) else None
        for item in mutilated.items
    ]
    return len(named) == len(mutilated.asked) and all(
        mobile in {None, asked} for mobile, asked in zip(named, mutilated.asked, strict=True)
    )


@settings(max_examples=1000, deadline=None)
@given(mutilations())
@example(Mutilated(["13900000003", "13900000001"], json.loads(answering.write_batch([truth_of(1)]))))
def test_no_number_gets_anothers_answer(mutilated: Mutilated) -> None:
    truths = {truth.msisdn: truth for truth in map(truth_of, range(61))}
    try:
        entries = asking.decode_batch(json.dumps(mutilated.items).encode(), mutilated.asked)
    except CarrierError:
        return
    assert [entry.msisdn for entry in entries] == mutilated.asked
    for entry in entries:
        if isinstance(entry, Answer) and entry.code == 0:
            assert entry == truths[entry.msisdn]
        elif isinstance(entry, Answer) and not looks_whole(mutilated):
            assert entry == truths[entry.msisdn], "matched by a place it may not hold"


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True), st.randoms())
def test_an_answer_in_any_order_is_the_answer(indexes: list[int], random: object) -> None:
    truths = [truth for truth in map(truth_of, indexes) if truth.code == 0]
    if not truths:
        return
    shuffled = list(truths)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    raw = answering.write_batch(shuffled)
    assert asking.decode_batch(raw, [truth.msisdn for truth in truths]) == truths


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True))
def test_what_the_provider_writes_the_client_reads(indexes: list[int]) -> None:
    truths = [truth_of(index) for index in indexes]
    assert asking.decode_batch(answering.write_batch(truths), [truth.msisdn for truth in truths]) == truths


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-11, 11) | st.text(max_size=12) | st.just("13900000000"),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["code", "reason", "result", "res", "Mobile", "Init_Isp", "Now_isp", "balance"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_an_answer_or_an_error_of_ours(document: object) -> None:
    asked = ["13900000000", "13900000001"]
    raw = json.dumps(document).encode()
    for read in (
        lambda: asking.decode_batch(raw, asked),
        lambda: [asking.decode_single(raw, asked[0])],
        lambda: asking.decode_balance(raw),
    ):
        try:
            entries = read()
        except CarrierError:
            continue
        if isinstance(entries, list):
            assert all(isinstance(entry, Answer | Unanswered) for entry in entries)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error_of_ours(raw: bytes) -> None:
    for read in (
        lambda: asking.decode_batch(raw, ["13900000000"]),
        lambda: asking.decode_single(raw, "13900000000"),
        lambda: asking.decode_balance(raw),
    ):
        try:
            read()
        except CarrierError:
            continue
