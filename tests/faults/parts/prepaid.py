"""A prepaid balance under many callers at once, the front door killed -9 on the way: nothing beyond it.

Whoever is charged has been answered, but for the calls that were open at a kill; the statement lists these.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

from tests.acceptance.provider import WatchedSandbox
from tests.acceptance.waiting import eventually
from tests.faults.parts.query_page import Site
from worker.carrier.protocol import FeeType
from worker.storage import accounts, engine
from worker.storage.engine import connect

_SIZES = (1, 2, 8)
"""Numbers a call may have."""
_PAUSE_SECONDS = 0.25
_STILL_AT_WORK = """
    SELECT FROM pg_stat_activity WHERE application_name LIKE 'presend%' AND datname = current_database()
"""
_OPEN = "SELECT id, charged FROM account_hold"
_OPEN_IN_A_HURRY = "UPDATE account_hold SET until = now() RETURNING id, charged"


@dataclass
class Callers:
    """Programs that ask, each number once, until there are no more or nothing is left to pay with.

    A number whose call was cut off is not asked again; one that could not be paid for is.
    """

    key: str
    site: Site
    numbers: deque[str]
    # how long a caller waits for a balance that others hold
    patience_seconds: float
    answered: int = 0
    calls_cut_off: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, seed: int) -> None:
        drawn, poor_since = random.Random(seed), math.inf
        while time.monotonic() - poor_since < self.patience_seconds:
            poor = poor_since < math.inf
            mobiles = self._taken(1 if poor else drawn.choice(_SIZES))
            if not mobiles:
                return
            try:
                answer = self._ask(mobiles)
            except ConnectionRefusedError:  # nothing was sent: it was killed, and comes back
                with self.lock:
                    self.numbers.extendleft(mobiles)
                time.sleep(_PAUSE_SECONDS)
                continue
            except (OSError, HTTPException):
                with self.lock:
                    self.calls_cut_off += 1
                continue
            codes = [item["code"] for item in answer] if isinstance(answer, list) else [answer["code"]]
            with self.lock:
                self.answered += codes.count(0)
            if codes == [-5]:
                with self.lock:
                    self.numbers.extendleft(mobiles)
                poor_since = min(poor_since, time.monotonic())
                time.sleep(_PAUSE_SECONDS)
            else:
                poor_since = math.inf

    def _taken(self, wanted: int) -> list[str]:
        with self.lock:
            return [self.numbers.popleft() for _ in range(min(wanted, len(self.numbers)))]

    def _ask(self, mobiles: list[str]) -> Any:
        connection = HTTPConnection("127.0.0.1", self.site.port, timeout=20)
        body = json.dumps({"ApiKey": self.key, "PhoneNumbers": mobiles})
        try:
            connection.request("POST", "/carrier_batch", body, {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@dataclass
class Told:
    """What the run came to."""

    callers: int
    balance: int
    # numbers that were there to be asked
    numbers: int
    # with code 0, as the callers got them
    answered: int = 0
    charged: int = 0
    # calls that the statement lists: their server ended before they were answered, or before that was known
    listed_released: int = 0
    listed_unsent: int = 0
    # look-ups charged by the latter
    charged_unsent: int = 0
    # charged, neither answered nor listed
    lost: int = 0
    billed: int = 0
    billed_again_listed: int = 0
    billed_again_unlisted: int = 0
    # from each kill to the next answer
    recoveries: list[float] = field(default_factory=list)


def run(
    site: Site,
    sandbox: WatchedSandbox,
    *,
    balance: int,
    callers: int,
    numbers: int,
    kills: int = 2,
    hurry: bool = False,
) -> Told:
    """Tell the story. ``hurry``: the time of what a killed server held is up at once, not in 40 s."""
    told = Told(callers, balance, numbers)
    database = connect(site.database_url, connections=1)
    _, key = engine.transact(
        database, lambda to: accounts.create(to, "shop", fee_type=FeeType.PREPAID, balance=balance, by="mei")
    )
    database.dispose()
    patience_seconds = 1.0 if hurry else 60.0
    asking = Callers(key, site, deque(f"139{n:08d}" for n in range(numbers)), patience_seconds)
    open_at_kill: dict[str, int] = {}
    threads = [threading.Thread(target=asking.call, args=(n,)) for n in range(callers)]
    site.start()
    for thread in threads:
        thread.start()
    for number in range(1, kills + 1):
        # early: whatever was charged and not sent by then, something is left for the others
        enough = balance * number // (4 * kills)
        eventually(lambda most=enough: asking.answered >= most, "some answers", seconds=120)  # type: ignore[misc]
        site.kill()
        killed_at, stood_at = time.monotonic(), asking.answered
        eventually(lambda: not site.rows(_STILL_AT_WORK), "Postgres to end what it was asked before")
        for request, charged in site.rows(_OPEN_IN_A_HURRY if hurry else _OPEN):
            open_at_kill[str(request)] = charged or 0
        site.start()
        eventually(lambda most=stood_at: asking.answered > most, "an answer", seconds=90)  # type: ignore[misc]
        told.recoveries.append(time.monotonic() - killed_at)
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()
    eventually(lambda: not site.rows("SELECT FROM account_hold"), "upkeep to sweep up", seconds=90)
    told.answered = asking.answered
    _account_for(site, sandbox, told, open_at_kill)
    return told


def _account_for(site: Site, sandbox: WatchedSandbox, told: Told, open_at_kill: dict[str, int]) -> None:
    ((total, balance, held, charged),) = site.rows(
        "SELECT sum(m.amount), a.balance, a.held, -sum(m.amount) FILTER (WHERE m.kind = 'charge')"
        " FROM account a JOIN account_movement m ON m.account_id = a.id GROUP BY 2, 3"
    )
    told.charged = int(charged)
    assert (total, held) == (balance, 0), "the statement adds up to the balance, and nothing is held"
    assert balance == told.balance - told.charged
    assert 0 < told.answered <= told.charged <= told.balance
    listed = site.rows("SELECT request_id, kind FROM account_movement WHERE kind IN ('released', 'unsent')")
    kinds = {str(request): kind for request, kind in listed}
    assert set(kinds) == set(open_at_kill), "what was open at a kill is listed, and nothing else"
    unsent = [request for request, kind in kinds.items() if kind == "unsent"]
    told.listed_released, told.listed_unsent = len(kinds) - len(unsent), len(unsent)
    told.charged_unsent = sum(open_at_kill[request] for request in unsent)
    told.lost = max(0, told.charged - told.answered - told.charged_unsent)
    assert not told.lost, "charged, not answered, and not listed"
    again = {number for number, times in sandbox.bills().items() if times > 1}
    lost = site.rows("SELECT unnest(unanswered) FROM lookup_call WHERE outcome = 'lost'")
    bought_in_vain = {str(number) for (number,) in lost}
    told.billed = sum(sandbox.bills().values())
    told.billed_again_listed = len(again & bought_in_vain)
    told.billed_again_unlisted = len(again - bought_in_vain)
    assert not again - bought_in_vain
