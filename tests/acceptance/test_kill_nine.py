"""``kill -9`` in mid-call: what may be bought twice is listed, number for number. For more: tests/faults."""

from __future__ import annotations

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually


def test_a_killed_call_is_listed_as_lost_and_made_again(here: Place) -> None:
    """Numbers of the call on the wire are bought a second time, and no others."""
    here.settings["sms_slots"] = "1"  # so that one call is open
    numbers = plain_numbers(400)
    upkeep = here.upkeep()
    victim = here.worker("sms")
    here.send_many("sms", numbers[:100])
    here.check_settled(100)

    with here.sandbox.held():
        here.send_many("sms", numbers[100:])
        on_the_wire = set(here.sandbox.wait_for_call(2).mobiles)
        victim.kill()
        (named,) = here.rows("SELECT numbers FROM lookup_call WHERE outcome = 'calling'")
        assert named["numbers"] == len(on_the_wire)

    here.worker("sms")
    rows = here.check_settled(400)
    here.stop()
    assert upkeep.ended() == 0

    assert {row["decision"] for row in rows} == {"resend"}
    lost = here.rows("SELECT numbers, billed FROM lookup_call WHERE outcome = 'lost'")
    assert sum(row["numbers"] for row in lost) == len(on_the_wire)
    assert all(row["billed"] is None for row in lost)
    eventually(lambda: not here.sandbox.in_flight(), "the end of the abandoned calls")
    assert here.sandbox.bills() == {number: 1 + (number in on_the_wire) for number in numbers}
