"""``presend alive``, as a container's probe runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tests.commands import environment, presend
from worker.metrics import liveness
from worker.metrics.endpoint import open_endpoint

HELD = 'presend_messages_held_oldest_seconds{{lane="sms"}} {}\n'
REFRESHED = 'presend_fleet_refreshed_timestamp_seconds{{source="database"}} {}\n'


@contextmanager
def saying(text: str) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_port
        server.shutdown()


def stuck(text: str) -> str | None:
    with saying(text) as port:
        return liveness.stuck("0.0.0.0", port, after_seconds=900)


def test_a_process_that_serves_metrics_is_alive_and_one_that_is_gone_is_not() -> None:
    with saying("") as free:
        pass
    endpoint = open_endpoint("127.0.0.1", free, role="sms")
    assert endpoint is not None
    env = environment(metrics_port=str(endpoint.port))
    assert presend("alive", env=env).returncode == 0
    endpoint.close()
    gone = presend("alive", env=env)
    assert gone.returncode == 1
    assert "nobody answers on 127.0.0.1" in gone.stderr


@pytest.mark.parametrize(
    ("says", "value", "why"),
    [
        (HELD, lambda: 899, None),
        (HELD, lambda: 901, "lane sms has held a message for 901 s"),
        (REFRESHED, time.time, None),
        (REFRESHED, lambda: 1, "upkeep has looked at nothing for"),
    ],
    ids=["held for a while", "held too long", "just looked", "looked long ago"],
)
def test_what_makes_no_progress_is_stuck(says: str, value: Callable[[], float], why: str | None) -> None:
    found = stuck(says.format(value()))
    assert found is None if why is None else str(found).startswith(why)
