"""Look-ups bought on a realistic trace, beside the fewest that could have answered it.

The trace (``trace.py``) is sent at its own pace to two workers that take both lanes, over the provider at the
documented latency. ``least.py`` defines the fewest, and finds it from the trace and the provider's own log.
The run is checked: every request has its row and its event, and each look-up beyond the fewest is one that
``lookup_call`` lists, as lost or overtaken, or is told apart as ``unlisted``.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.request import urlopen

from tests.acceptance.harness import Place
from tests.benchmarks.ground import Ground
from tests.benchmarks.least import Call, Request, least
from tests.benchmarks.trace import NOT_ASKED, SAYS_PORTED, Asked, trace

_SECONDS, _PER_SECOND, _SEED = 300.0, 100.0, 20261124
_WORKERS = 2
_LISTED = (
    "SELECT outcome, cardinality(unanswered) AS lost, cardinality(overtaken) AS overtaken FROM lookup_call"
)


def run(ground: Ground) -> None:
    """Over each broker."""
    with ground.place_on_rabbitmq() as here:
        measure(ground, here, "rabbitmq")
    with ground.place_on_redis() as here:
        measure(ground, here, "redis")


def measure(ground: Ground, here: Place, broker: str) -> None:
    """Send the trace, wait until all is decided, judge."""
    wanted = trace(_SEED, seconds=max(10.0, _SECONDS * ground.scale), per_second=_PER_SECOND)
    provider = here.run("provider", [sys.executable, "-m", "tests.benchmarks.provider", "1"])
    provider.wait_for(" ready")
    url = provider.log.split()[1]
    here.upkeep(provider_url=url)
    for _ in range(_WORKERS):
        # none expires: a recharge told `expired` on a crowded machine would spare a look-up
        here.worker("recharge", "sms", provider_url=url, recharge_expiry_seconds="60")
    failed = _send(here, wanted)
    rows = here.check_settled(len(wanted), seconds=120)
    with urlopen(f"{url}/calls", timeout=10) as answer:
        calls = json.loads(answer.read())
    figures = judged(wanted, failed, rows, calls) | _listed(here)
    figures["unlisted"] = figures["bought"] - figures["least"] - figures["lost"] - figures["overtaken"]
    print(f"look-ups over {broker}: {figures}   [7: 1.00 (1.02)]", flush=True)
    here.stop()
    ground.write(figures, here.broker_url, here.database_url, suffix=f"_{broker}")


def judged(
    wanted: list[Asked], failed: dict[tuple[str, int], float], rows: list[dict[str, Any]], calls: list[Any]
) -> dict[str, Any]:
    """What was bought, and the fewest."""
    codes = {(one.reference, one.attempt): one.failure_code for one in wanted}
    requests: defaultdict[str, list[Request]] = defaultdict(list)
    for row in rows:
        key = row["reference"], row["attempt"]
        if codes[key] == NOT_ASKED:
            continue
        assert row["observed_at"] is not None, f"decided without an answer: {row['reason']}"
        received = row["received_at"].timestamp()
        requests[str(row["msisdn"])].append(
            Request(
                row["lane"],
                row["attempt"],
                row["asked_operator"],
                received,
                row["decided_at"].timestamp(),
                row["observed_at"].timestamp(),
                min(received, failed.get(key, received)) if row["lane"] == "sms" else None,
                codes[key] == SAYS_PORTED,
            )
        )
    asked: defaultdict[str, list[Call]] = defaultdict(list)
    for begin, end, numbers in calls:
        for number in numbers:
            # sent a little before it reached the provider, as those say who were given its answer
            sent = max((one.observed for one in requests[number] if one.observed <= begin), default=begin)
            asked[number].append(Call(sent, end, "CTCC" if int(number) % 17 == 0 else "CMCC"))
    bought = sum(map(len, asked.values()))
    fewest = sum(least(requests[number], asked[number]) for number in asked)
    return {
        "messages": len(wanted),
        "numbers": len({one.mobile for one in wanted}),
        "attempts_after_the_first": sum(one.attempt > 1 for one in wanted),
        "calls": len(calls),
        "bought": bought,
        "least": fewest,
        "ratio": round(bought / fewest, 4),
        "answered_from": dict(Counter(row["answered_from"] for row in rows)),
    }


def _send(here: Place, wanted: list[Asked]) -> dict[tuple[str, int], float]:
    """Send each at its moment; return when those sms failed whose messages say so, in POSIX seconds."""
    failed: dict[tuple[str, int], float] = {}
    began = time.monotonic()
    with here.producer.connection_for_write() as connection, connection.channel() as channel:
        publisher = here.producer.amqp.Producer(channel)
        for one in wanted:
            time.sleep(max(0.0, began + one.at - time.monotonic()))
            arguments = one.arguments()
            if one.failed_before is not None:
                moment = datetime.now(UTC) - timedelta(seconds=one.failed_before)
                arguments["failed_at"] = moment.isoformat()
                failed[one.reference, one.attempt] = moment.timestamp()
            here.producer.send_task(one.task, kwargs=arguments, producer=publisher, ignore_result=True)
    return failed


def _listed(here: Place) -> dict[str, int]:
    """Numbers that may have been bought twice, as the service itself lists them."""
    calls = here.rows(_LISTED)
    return {
        "lost": sum(call["lost"] or 0 for call in calls if call["outcome"] == "lost"),
        "overtaken": sum(call["overtaken"] or 0 for call in calls if call["outcome"] != "refused"),
    }
