"""A queue of ours exists with other arguments: the worker says so and ends, and loses nothing."""

from __future__ import annotations

import contextlib
import sys

import pytest

from tests.acceptance.harness import Place
from tests.acceptance.processes import celery
from tests.services import connect_amqp

EXIT_CONFIG = 78


@pytest.mark.parametrize("queue", ["sms", "recharge"])
def test_a_classic_queue(on_rabbitmq: Place, queue: str) -> None:
    """What a Celery producer declares by default."""
    here = on_rabbitmq
    with contextlib.closing(connect_amqp(here.broker_url)) as connection:
        channel = connection.channel()
        channel.queue_declare(queue, durable=True, auto_delete=False)
        worker = here.run("worker", celery("worker", "-Q", "sms", "-l", "INFO"))
        assert worker.ended() != 0
        assert "queue_has_other_arguments" in worker.log
        assert f'"queue": "{queue}"' in worker.log
        assert "README" in worker.log
        alone = here.run("alone", [sys.executable, "-m", "worker.cli", "worker", "--lane", "sms"])
        assert alone.ended() == EXIT_CONFIG
        # nothing of it is touched
        assert channel.queue_declare(queue, passive=True).message_count == 0


def test_all_of_presend_ends(on_rabbitmq: Place) -> None:
    """``presend worker`` does not start it again and again."""
    here = on_rabbitmq
    with contextlib.closing(connect_amqp(here.broker_url)) as connection:
        connection.channel().queue_declare("sms", durable=True, auto_delete=False)
        every = here.run("presend", [sys.executable, "-m", "worker.cli", "worker"])
        assert every.ended() == EXIT_CONFIG
        assert every.log.count("queue_has_other_arguments") <= 2
