"""SIGTERM in the middle of a batch: what is on the wire is finished, the rest goes back, nothing is lost."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually
from worker.sandbox.provider import Latency

GRACE_SECONDS = 20
QUICKLY_SECONDS = 8
"""Two seconds, and what a busy machine needs; the call takes 12."""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_batch_on_the_wire_is_finished(here: Place, how: signal.Signals) -> None:
    here.settings["sms_slots"] = "1"
    numbers = plain_numbers(300)
    worker = here.worker("sms")
    with here.sandbox.held():
        here.send_many("sms", numbers[:100])
        on_the_wire = here.sandbox.wait_for_call(2)
        here.send_many("sms", numbers[100:])  # these wait for the one slot
        eventually(lambda: "sms" not in here.messages_left(), "all received")
        asked_at = time.time()
        worker.signal(how)
        worker.wait_for("Warm shutdown")
    # Celery ends a Ctrl-C with 1, however warm
    assert worker.ended(seconds=GRACE_SECONDS) == (0 if how is signal.SIGTERM else 1)
    assert time.time() - asked_at < GRACE_SECONDS
    # the call was finished and committed, none was started
    assert on_the_wire.ended is not None
    begun = [round(call.began - asked_at, 2) for call in here.sandbox.asked]
    assert max(begun) < 0.2, begun
    done = {str(row["msisdn"]) for row in here.ledger()}
    assert set(on_the_wire.mobiles) <= done
    # what was finished is acknowledged, the rest is in the queue again
    assert here.messages_left() == {"sms": 300 - len(done)}
    here.check_events()
    assert not here.unfinished()

    here.worker("sms")
    here.check_settled(300)
    here.stop()
    assert here.sandbox.bills() == dict.fromkeys(numbers, 1)


def test_while_everything_waits_for_the_provider(here: Place) -> None:
    """A warm shutdown with requests that are only postponed is quick, and hands them back."""
    from worker.sandbox.faults import Fault

    here.sandbox.faults.add(Fault(kind="code", code=-8, calls=None))
    numbers = plain_numbers(20)
    worker = here.worker("sms")
    here.send_many("sms", numbers)
    eventually(lambda: here.count("lookup_call") >= 2, "calls in vain")
    started = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - started < 5
    assert here.messages_left() == {"sms": 20}
    here.sandbox.faults.clear()
    here.worker("sms")
    here.check_settled(20)
    here.stop()


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGQUIT,)],
    ids=["SIGTERM twice", "SIGINT twice", "SIGQUIT"],
)
def test_a_second_signal_waits_for_no_call(here: Place, signals: tuple[signal.Signals, ...]) -> None:
    numbers = plain_numbers(50)
    upkeep = here.upkeep()
    here.sandbox.latency = Latency(12, 12)
    worker = here.worker("sms")
    here.send_many("sms", numbers)
    here.sandbox.wait_for_call(2)
    for number in signals:
        worker.signal(number)
        eventually(lambda: not worker.alive or "shutdown" in worker.log.lower(), "the signal seen")
    worker.ended(seconds=QUICKLY_SECONDS)
    here.sandbox.latency = Latency(scale=0)
    here.worker("sms")
    here.check_settled(len(numbers))
    assert upkeep.stop() == 0
    lost = here.rows("SELECT unnest(unanswered)::text AS msisdn FROM lookup_call WHERE outcome = 'lost'")
    again = {number for number, times in here.sandbox.bills().items() if times > 1}
    assert again <= {row["msisdn"] for row in lost}


def test_the_supervisor_hands_a_second_signal_on(here: Place) -> None:
    here.sandbox.latency = Latency(12, 12)
    supervisor = here.run("supervisor", [sys.executable, "-m", "worker.cli", "worker"])
    eventually(lambda: supervisor.log.count(" ready.") == 2, "both lanes", seconds=30)
    here.send_many("sms", plain_numbers(20))
    here.sandbox.wait_for_call(2)
    supervisor.signal(signal.SIGTERM)
    supervisor.wait_for('"SIGTERM"')
    supervisor.signal(signal.SIGTERM)
    supervisor.ended(seconds=QUICKLY_SECONDS)
