"""``kill -9`` in the middle of a provider call: nothing is lost, and what may be bought twice is listed."""

from __future__ import annotations

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually
from worker.sandbox.provider import Latency


def test_a_killed_call_is_listed_as_lost_and_made_again(here: Place) -> None:
    """Numbers of the call on the wire are bought a second time, and no others."""
    here.settings["provider_timeout_seconds"] = "1,1.5"
    numbers = plain_numbers(400)
    upkeep = here.upkeep()
    victim = here.worker("sms")
    here.send_many("sms", numbers[:100])
    here.check_settled(100)

    here.sandbox.latency = Latency(1.0, 1.0)
    here.send_many("sms", numbers[100:])
    killed_call = here.sandbox.wait_for_call(2)
    here.received_all()
    victim.kill()
    on_the_wire = {mobile for call in here.sandbox.in_flight() for mobile in call.mobiles}
    assert set(killed_call.mobiles) <= on_the_wire
    named = here.rows("SELECT sum(numbers) AS numbers FROM lookup_call WHERE outcome = 'calling'")[0][
        "numbers"
    ]
    assert named == len(on_the_wire)

    here.sandbox.latency = Latency(scale=0)
    here.make_unacked_old()
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


def test_killed_twice_with_a_neighbour_alive(on_rabbitmq: Place) -> None:
    """Two workers; one is killed, its successor is killed: each key has one row and one event."""
    here = on_rabbitmq
    here.settings |= {"provider_timeout_seconds": "1,1.5", "recharge_share_wait_seconds": "60"}
    here.settings["recharge_expiry_seconds"] = "60"
    here.sandbox.latency = Latency(0.3, 0.5)
    numbers = plain_numbers(600)
    here.upkeep()
    here.worker("sms", "recharge")
    victim = here.worker("sms", "recharge")
    for first in (0, 300):
        here.send_many("sms", numbers[first : first + 150])
        here.send_many("recharge", numbers[first + 150 : first + 300], attempt=2)
        here.sandbox.wait_for_call(2)
        victim.kill()
        victim = here.worker("sms", "recharge")
    here.check_settled(600)
    here.stop()
    bills = here.sandbox.bills()
    assert bills.keys() == set(numbers)
    # each second bill is one that a lost call explains
    (lost,) = here.rows("SELECT coalesce(sum(numbers), 0) AS n FROM lookup_call WHERE outcome = 'lost'")
    assert sum(times - 1 for times in bills.values()) <= lost["n"]
    assert max(bills.values()) <= 3
