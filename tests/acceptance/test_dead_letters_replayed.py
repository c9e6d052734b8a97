"""A thousand dead letters of five kinds: filtered, priced, and replayed from the console under a cap."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually
from tests.operators_console import operators_console
from worker.asking import NEVER_ANSWERED
from worker.dead_queue import GIVEN_UP
from worker.storage import dead_letters, engine
from worker.storage.dead_letters import DeadLetter
from worker.storage.ids import new_id

REFUSED = "the provider refused this number with code 1 3 times, asked by itself and unbilled: ask it"
WRONG = "operator must be one of CMCC 移动, CUCC 联通, CTCC 电信, CBN 广电"
CAP = 300


def test_a_replay_buys_no_more_than_its_cap(on_redis: Place) -> None:
    here = on_redis
    numbers = plain_numbers(700)
    unanswered, refused, known = numbers[:400], numbers[400:550], numbers[550:]
    here.worker("recharge", "sms")
    here.upkeep()
    here.send_many("sms", known, prefix="K")
    here.check_settled(150)
    bought_before = _billed(here)
    letters = [
        *(("sms.recheck", _sms(f"U{n}", n), NEVER_ANSWERED) for n in unanswered),
        *(("recharge.precheck", _order(f"R{n}", n), REFUSED) for n in refused),
        *(("sms.recheck", _sms(f"W{n}", n) | {"operator": "Vodafone"}, WRONG) for n in numbers[:200]),
        *(("sms.recheck", _sms(f"K{n}", n), GIVEN_UP) for n in known[:50]),
        *(("recharge.precheck", _order(f"F{n}", n), GIVEN_UP) for n in known[50:]),
        *(("sms.recheck", {"base64": "/w=="}, "the body is not valid JSON in UTF-8") for _ in range(100)),
    ]
    assert len(letters) == 1000
    begin = datetime.now(UTC) - timedelta(hours=2)
    with operators_console(here.database_url, broker_url=here.broker_url) as console:
        parked = [
            DeadLetter(new_id(), task, payload, reason, "sms", begin + timedelta(seconds=at))
            for at, (task, payload, reason) in enumerate(letters)
        ]
        engine.transact(console.database, lambda to: dead_letters.add(to, parked))
        mei = console.client("mei")
        page = mei.get("/dead").text
        assert "1,000 letters fit" in page
        kinds = dict(re.findall(r'<option value="([^"]+)">[^<]* \((\d+)\)</option>', page))
        assert sorted(map(int, kinds.values())) == [100, 150, 150, 200, 400]
        (kind,) = [kind for kind, number in kinds.items() if "refused" in kind]
        assert "150 letters fit" in mei.get("/dead", params={"kind": kind}).text
        assert "no dead letter fits" in mei.get("/dead", params={"hours": "1"}).text.lower()
        assert _figures(mei.submit("/dead/price", page="/dead", kind=kind).text) == [150, 150, 0, 0, 0]

        assert _figures(mei.submit("/dead/price", page="/dead").text) == [900, 550, 50, 100, 200]
        assert here.messages_left() == {}, "a price sends nothing"
        done = mei.submit("/dead/replay", page="/dead", cap=str(CAP), why="the provider is well again")
        assert _figures(done.text) == [650, 300, 350]
        assert "250 letters stay: their look-ups would pass the cap" in done.text

        rows = here.decided(150 + 300 + 100, seconds=40)
        eventually(lambda: here.count("dead_letter") == 1200, "the wrong ones back as new letters")
        eventually(lambda: not here.unfinished(), "the end of everything")
        assert _billed(here) - bought_before == CAP
        assert _sum(here, "SELECT sum(billed) FROM lookup_call") == _billed(here)
        assert sum(row["answered_from"] == "live" for row in rows) == 150 + CAP
        assert sum(row["answered_from"] == "stored" for row in rows) == 100
        assert _sum(here, "SELECT count(*) FROM dead_letter WHERE replayed_at IS NOT NULL") == 650
        trail = mei.get("/trail", params={"action": "replay"}).text
        assert "the provider is well again (at most 300 look-ups; all)" in trail
        assert "650 of 1,000 letters sent, at most 300 look-ups" in trail
    here.stop()


def _sms(message_id: str, mobile: str) -> dict[str, Any]:
    return {"message_id": message_id, "mobile": mobile, "operator": "CMCC"}


def _order(order_id: str, mobile: str) -> dict[str, Any]:
    return {"order_id": order_id, "mobile": mobile, "operator": "CMCC"}


def _figures(page: str) -> list[int]:
    found = re.findall(r"<dt>[^<]*</dt><dd>([\d,]+)</dd>", page)
    return [int(each.replace(",", "")) for each in found]


def _sum(here: Place, query: str) -> int:
    (row,) = here.rows(query)
    return int(next(iter(row.values())))


def _billed(here: Place) -> int:
    """Numbers the provider has charged for."""
    return sum(here.sandbox.bills().values())
