"""A process of presend, patched from outside: ``python -m tests.faults.launcher [OPTION…] -- COMMAND…``.

COMMAND is ``upkeep``, or what follows ``celery -A worker.app``. With ``--crash`` it lives several lives: each
is killed at one of the named points, and forked anew from this process, which has imported everything and
opened nothing, so that a start takes a fraction of a second. The last life has no crash point.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.faults.guards import GUARDS
from tests.faults.patching import wrap
from tests.faults.points import POINTS, Trap
from tests.faults.tracing import trace

_IMPORTED = (
    "celery.apps.worker",
    "celery.bin.worker",
    "celery.concurrency.solo",
    "kombu.transport.pyamqp",
    "kombu.transport.redis",
    "tasks.precheck",
    "tasks.recheck",
    "worker.bootstrap",
    "worker.consumer",
    "worker.publisher.amqp",
    "worker.publisher.stream",
    "sqlalchemy.dialects.postgresql.psycopg",
)


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    if not options.crash:
        _run(options, None)
        return 0
    for module in _IMPORTED:
        importlib.import_module(module)
    return _lives(options)


def _lives(options: argparse.Namespace) -> int:
    """Fork one life after the other; the exit code is the last one's."""
    chance = random.Random(options.seed)
    traps: list[tuple[str, int] | None] = [
        (point, chance.randint(1, POINTS[point].latest)) for point in options.crash.split(",") * options.times
    ]
    chance.shuffle(traps)
    child = 0
    asked = False

    def pass_on(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if child:
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    for trap in [*traps, None]:
        child = os.fork()
        if not child:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            _run(options, trap)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code != -signal.SIGKILL or asked or trap is None:
            return code if code >= 0 else 1
        with options.kills.open("a") as kills:
            kills.write(json.dumps({"pid": child, "at": time.time(), "where": trap[0]}) + "\n")
    return 0


def _run(options: argparse.Namespace, trap: tuple[str, int] | None) -> None:
    """Be the command, until it ends."""
    if options.trace:
        trace(options.trace)
    if options.relay_after is not None:
        wrap(
            "worker.upkeep:Upkeep.relay",
            lambda relay, upkeep: relay(upkeep, older_than_seconds=options.relay_after),
        )
    if options.without:
        GUARDS[options.without]()
    if trap is not None:
        point, nth = trap
        POINTS[point].arm(Trap(nth))
    if options.command == ["upkeep"]:
        from worker.processes.role import run

        sys.exit(run("upkeep"))
    command = [
        word.replace("PID", str(os.getpid())) for word in options.command
    ]  # each life a name of its own
    sys.argv = ["celery", "-A", "worker.app", *command]
    importlib.import_module("celery.__main__").main()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="launcher")
    parser.add_argument("--trace", type=Path, help="folder for the trace of what is taken and acknowledged")
    parser.add_argument("--without", choices=GUARDS, help="guard to switch off")
    parser.add_argument("--relay-after", type=float, help="seconds, for those who cannot wait thirty")
    parser.add_argument("--crash", default="", help="crash points, comma-separated")
    parser.add_argument("--times", type=int, default=1, help="kills at each point")
    parser.add_argument("--kills", type=Path, help="file that gets a line a kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("command", nargs="+")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
