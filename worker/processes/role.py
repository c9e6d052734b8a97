"""One process of presend: the consumer of a lane, or upkeep.

``presend worker --lane sms`` runs one in its own process; the supervisor runs each as
``python -m worker.processes.role ROLE PARENT_PID`` in a fresh interpreter.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from types import FrameType

from worker.errors import SettingsError

UPKEEP = "upkeep"
ROLES = ("recharge", "sms", UPKEEP)
"""What a process of presend can be."""

EXIT_CONFIG = 78
"""sysexits' EX_CONFIG: starting again helps only after somebody mended a setting or a queue."""
GRACE_SECONDS = 30.0
"""How long a process may take to end once asked; a warm shutdown waits 20 s for batches in flight."""
_LET_GO_SECONDS = 10.0
"""Upkeep opens a connection for each look at the broker; left to Python, hundreds wait to be collected."""
_PARENT_LOOK_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1


def run(role: str) -> int:
    """Be ``role`` until a signal ends it; return the exit code.

    SIGTERM and SIGINT finish what is in flight first.
    """
    return _run_upkeep() if role == UPKEEP else _run_lane(role)


def _run_lane(lane: str) -> int:
    """What ``celery -A worker.app worker -Q <lane>`` does, without its banner and with its exit code.

    Celery's own ``worker_main`` drops the exit code, by which the consumer tells of a wrong queue.
    """
    from worker import bootstrap  # noqa: PLC0415 - the supervisor builds nothing
    from worker.app import app  # noqa: PLC0415 - upkeep needs no Celery

    bootstrap.this_process()  # here a wrong setting is one line; Celery would log it with a traceback
    # Celery warns of root in eight lines on every start; a container may have no other user.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser")
    node = f"{lane}-{os.getpid()}@{socket.gethostname()}"
    worker = app.Worker(hostname=node, queues=[lane], loglevel="INFO", quiet=True)
    worker.start()
    return int(worker.exitcode or 0)


def _run_upkeep() -> int:
    from worker import bootstrap, logs, memory  # noqa: PLC0415 - the supervisor builds nothing
    from worker.metrics import endpoint  # noqa: PLC0415

    logs.configure(json=bootstrap.this_process().settings.log_json)
    stop = threading.Event()
    upkeep = bootstrap.upkeep()
    settings = bootstrap.this_process().settings
    endpoint.open_endpoint(settings.metrics_host, settings.metrics_port, role=UPKEEP)
    memory.settle_down()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    # In a thread: a handler that sets the event its own thread waits for can block for ever.
    chores = threading.Thread(target=upkeep.run, args=(stop,), name="upkeep")
    chores.start()
    while chores.is_alive():
        chores.join(_LET_GO_SECONDS)
        memory.let_go()
    return 0


def die_with(parent: int) -> None:
    """End this process, warmly, once ``parent`` is gone: kill -9 gives that no chance to pass it on."""
    told_by_kernel = sys.platform == "linux"  # at once; elsewhere within a second
    if told_by_kernel:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        told_by_kernel = os.getppid() == parent  # not of an end before that
    threading.Thread(target=_watch, args=(parent, told_by_kernel), name="parent-watch", daemon=True).start()


def _watch(parent: int, told_by_kernel: bool) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_LOOK_SECONDS)
    if not told_by_kernel:  # a second signal would not wait for what is in flight
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: Sequence[str]) -> int:
    """Entry of a supervised process: its role, and the supervisor's pid."""
    role, parent = arguments
    die_with(int(parent))
    sys.argv = ["-m", "worker.processes.role", *arguments]  # Celery starts itself again with these at SIGHUP
    try:
        return run(role)
    except SettingsError as exc:
        print(f"presend {role}: {exc}", file=sys.stderr)  # noqa: T201 - the supervisor's terminal
        return EXIT_CONFIG


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
