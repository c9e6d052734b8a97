"""Broker connections are cut in the middle of a batch: nothing is bought twice, nothing is lost."""

from __future__ import annotations

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.proxy import Proxy
from tests.acceptance.waiting import eventually
from worker.sandbox.provider import Latency


def test_cut_in_mid_call(cuttable: tuple[Place, Proxy]) -> None:
    """The answer in flight is committed; redelivered messages find it; what waited is delivered again."""
    here, proxy = cuttable
    numbers = plain_numbers(500)
    here.upkeep()
    worker = here.worker("sms")
    for first in range(0, 400, 100):
        here.sandbox.latency = Latency(0.6, 0.6)
        here.send_many("sms", numbers[first : first + 100])
        here.sandbox.wait_for_call(2)
        assert proxy.cut() >= 1
        eventually(lambda: not here.sandbox.in_flight(), "the answer")
    # nothing of all this stops the last, partial batch
    here.sandbox.latency = Latency(scale=0)
    here.send_many("sms", numbers[400:])
    here.check_settled(500, seconds=40)
    assert worker.alive
    here.stop()
    assert here.sandbox.bills() == dict.fromkeys(numbers, 1)
    assert not here.rows("SELECT * FROM lookup_call WHERE outcome <> 'answered'")


def test_broker_away_for_a_while(cuttable: tuple[Place, Proxy]) -> None:
    """No connection can be made for some seconds: the call in flight is committed, all goes on after."""
    here, proxy = cuttable
    numbers = plain_numbers(200)
    here.upkeep()
    worker = here.worker("sms")
    here.sandbox.latency = Latency(0.5, 0.5)
    here.send_many("sms", numbers[:100])
    here.sandbox.wait_for_call(2)
    proxy.refuse(True)
    proxy.cut()
    eventually(lambda: here.count("check_request") > 0, "the answer's commit, without a broker")
    proxy.refuse(False)
    here.send_many("sms", numbers[100:])
    here.decided(200, seconds=40)
    eventually(lambda: not here.messages_left(), "all acknowledged")
    assert worker.alive
    here.stop()
    assert here.sandbox.bills() == dict.fromkeys(numbers, 1)
