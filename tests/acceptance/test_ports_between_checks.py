"""A number is ported between two checks: everybody is told, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually


def test_number_ported(here: Place) -> None:
    moved, stayed = plain_numbers(2)
    here.worker("recharge", "sms")
    before = datetime.now(UTC)
    for number in (moved, stayed):
        first = here.send("recharge.precheck", order_id=f"A{number}", mobile=number, operator="移动").get(10)
        assert (first["decision"], first["answered_from"]) == ("confirmed", "live")

    here.sandbox.port(moved, "CUCC")
    reroutes = {}
    for number in (moved, stayed):
        answer = here.send(
            "sms.recheck", message_id=f"B{number}", mobile=number, operator="CMCC", failure_code="MK:0001"
        ).get(10)
        reroutes[number] = (answer["decision"], answer["reason"], answer["target_operator"], answer["status"])
        assert answer["answered_from"] == "live"  # the failure speaks against the record
    assert reroutes == {
        moved: ("reroute", "other_operator", "CUCC", "ported"),
        stayed: ("undeliverable", "permanent_failure", None, "not_ported"),
    }
    # the new operator's channel fails too, the new record answers nothing: the number went home again
    here.sandbox.port(moved, "CMCC")
    home = here.send("sms.recheck", message_id=f"C{moved}", mobile=moved, operator="CUCC").get(10)
    assert (home["decision"], home["target_operator"], home["status"]) == ("reroute", "CMCC", "not_ported")

    here.check_settled(5)
    there, back = sorted(here.events.of_type("number.ported"), key=lambda event: str(event["time"]))
    check_change(there["data"], moved, "CMCC", "CUCC", doubtful=False)
    # the regulator allows no second port within 120 days
    check_change(back["data"], moved, "CUCC", "CMCC", doubtful=True)
    assert there["subject"] == moved
    assert there["data"]["observed_before"] == back["data"]["observed_after"] == there["time"]
    assert before - timedelta(seconds=1) < datetime.fromisoformat(there["data"]["observed_after"])

    rows = here.rows("SELECT * FROM port_change ORDER BY observed_before")
    assert [(str(row["msisdn"]), row["donor"], row["recipient"], row["doubtful"]) for row in rows] == [
        (moved, "CMCC", "CUCC", False),
        (moved, "CUCC", "CMCC", True),
    ]
    assert [str(row["event_id"]) for row in rows] == [there["id"], back["id"]]
    (record,) = here.rows("SELECT * FROM port_record WHERE msisdn = %s", int(moved))
    assert (record["status"], record["current_operator"]) == ("not_ported", "CMCC")
    assert record["changed_at"] == record["observed_at"]
    here.stop()


def test_a_young_record_hides_a_port_until_something_speaks_against_it(here: Place) -> None:
    """What is paid for sparingly: a first recharge trusts a young record, a second try does not."""
    (number,) = plain_numbers(1)
    here.worker("recharge")
    here.send("recharge.precheck", order_id="A", mobile=number, operator="CMCC").get(10)
    here.sandbox.port(number, "CBN")
    trusting = here.send("recharge.precheck", order_id="B", mobile=number, operator="CMCC").get(10)
    assert (trusting["decision"], trusting["answered_from"]) == ("confirmed", "stored")
    again = here.send("recharge.precheck", order_id="B", mobile=number, operator="CMCC", attempt=2).get(10)
    assert (again["decision"], again["target_operator"]) == ("reroute", "CBN")
    assert here.sandbox.bills() == {number: 2}
    eventually(lambda: here.events.of_type("number.ported"), "number.ported")
    here.stop()


def check_change(data: dict[str, object], mobile: str, donor: str, recipient: str, *, doubtful: bool) -> None:
    assert (data["mobile"], data["donor"], data["recipient"], data["doubtful"]) == (
        mobile,
        donor,
        recipient,
        doubtful,
    )
