"""``presend serve`` killed -9 while many call: nothing is answered beyond a balance; the rest is listed."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

import psycopg

from tests.acceptance.waiting import eventually
from tests.commands import command, environment
from worker.carrier.protocol import FeeType
from worker.sandbox.provider import DEFAULT_APIKEY, Latency, Sandbox
from worker.sandbox.serving import serving
from worker.storage import accounts, engine
from worker.storage.engine import connect

BALANCE = 200
CALLERS = 8


@dataclass
class Callers:
    """Programs that ask until their account has nothing left, whatever becomes of the server."""

    key: str
    port: int
    answered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: Iterator[str] = field(default_factory=lambda: (f"139{n:08d}" for n in itertools.count()))

    def call(self, seed: int) -> None:
        drawn, poor = random.Random(seed), 0
        while poor < 3:
            with self.lock:
                mobiles = list(itertools.islice(self.numbers, drawn.choice((1, 2, 8))))
            try:
                answer = self.ask(mobiles)
            except (OSError, HTTPException):
                time.sleep(0.1)  # it was killed; it comes back
                continue
            codes = [item["code"] for item in answer] if isinstance(answer, list) else [answer["code"]]
            poor = poor + 1 if codes == [-5] else 0
            with self.lock:
                self.answered += codes.count(0)

    def ask(self, mobiles: list[str]) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        body = json.dumps({"ApiKey": self.key, "PhoneNumbers": mobiles})
        try:
            connection.request("POST", "/carrier_batch", body, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def served(env: dict[str, str], port: int = 0) -> Iterator[int]:
    """The port of a server in a process of its own, which is killed -9 at the end."""
    line = command("serve", "--port", str(port))
    with subprocess.Popen(
        line, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().strip().rpartition(":")[2])
        finally:
            process.kill()


def test_two_kills_on_the_way_to_an_empty_balance(database_url: str) -> None:
    database = connect(database_url, connections=2)
    _, key = engine.transact(
        database,
        lambda to: accounts.create(to, "shop", fee_type=FeeType.PREPAID, balance=BALANCE, by="mei"),
    )
    sandbox = Sandbox(latency=Latency(scale=0.1))
    listed: dict[str, int] = {}

    def note_open_calls() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            for request, charged in connection.execute("SELECT id, charged FROM account_hold"):
                listed[str(request)] = charged or 0
            connection.execute("UPDATE account_hold SET until = now()")  # as if its time were up

    with serving(sandbox) as provider_url:
        env = environment(
            broker_url="redis://127.0.0.1:1/0",
            database_url=database_url,
            provider_url=provider_url,
            provider_apikey=DEFAULT_APIKEY,
        )
        callers, threads, port = Callers(key, 0), list[threading.Thread](), 0
        for enough in (BALANCE // 4, BALANCE // 2):
            with served(env, port) as port:
                callers.port = port
                if not threads:
                    threads = [threading.Thread(target=callers.call, args=(n,)) for n in range(CALLERS)]
                    for thread in threads:
                        thread.start()
                eventually(lambda most=enough: callers.answered >= most, "some answers", seconds=60)
            note_open_calls()
        with served(env, port):
            for thread in threads:
                thread.join(60)
            eventually(lambda: not rows(database_url, "SELECT FROM account_hold"), "upkeep to sweep up")

    charged = -rows(database_url, "SELECT sum(amount) FROM account_movement WHERE kind = 'charge'")[0][0]
    ((total, balance, held),) = rows(
        database_url,
        "SELECT (SELECT sum(amount) FROM account_movement), balance, held FROM account",
    )
    assert (total, held) == (balance, 0)
    assert balance == BALANCE - charged
    assert 0 < callers.answered <= charged <= BALANCE
    assert charged - callers.answered <= sum(listed.values()), "charged, not answered, and not listed"
    statement = rows(
        database_url, "SELECT request_id FROM account_movement WHERE kind IN ('released', 'unsent')"
    )
    assert {str(request) for (request,) in statement} == set(listed)
    assert len(listed) <= 2 * CALLERS
    database.dispose()


def rows(database_url: str, query: str) -> list[Any]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(query).fetchall()
