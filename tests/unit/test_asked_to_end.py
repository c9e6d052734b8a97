"""Signals that ask a worker to end are heard wherever its main thread stands."""

from __future__ import annotations

import subprocess
import sys

from tests import commands

_SCRIPT = """
import os, signal, threading, time
from worker import asked_to_end

heard = []

def asked(hurried):
    heard.append(hurried)
    print(hurried, flush=True)
    if hurried:
        os._exit(7)

def handler(number, frame):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()  # for ever, as where a handler has interrupted who holds what it waits for

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, handler)
asked_to_end.hear(asked)

def send():
    for name in {names}:
        os.kill(os.getpid(), getattr(signal, name))
        while not heard:
            time.sleep(0.01)

threading.Thread(target=send).start()
handler(0, None)
"""


def heard(*names: str, **environment: str) -> tuple[list[str], int]:
    """What the process heard of these signals, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.replace("{names}", repr(names))],
        env=commands.environment() | environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.stdout.split(), done.returncode


def test_the_second_signal_is_heard_though_the_handler_of_the_first_hangs() -> None:
    assert heard("SIGTERM", "SIGINT") == (["False", "True"], 7)


def test_a_signal_that_waits_for_nothing_is_heard_so() -> None:
    assert heard("SIGQUIT") == (["True"], 7)
    assert heard("SIGTERM", REMAP_SIGTERM="SIGQUIT") == (["True"], 7)
