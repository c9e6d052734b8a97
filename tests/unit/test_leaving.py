"""A signal ends the program even where Python drops what its handler raises."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import commands

_SCRIPT = """
import os, signal, time, weakref
from worker.leaving import leave

class Thing:
    pass

class Finalised:
    def __del__(self):
        strike()

def strike(_reference=None):
    os.kill(os.getpid(), signal.SIGTERM)

def handler(number, _frame):
    signal.signal(number, signal.SIG_IGN)
    leave(128 + number)

signal.signal(signal.SIGTERM, handler)
try:
    {where}
    time.sleep(15)
finally:
    print("cleaned up")
"""


@pytest.mark.parametrize(
    "where",
    [
        "strike()",
        "Finalised()",
        "thing = Thing(); kept = weakref.ref(thing, strike); del thing",
    ],
)
def test_it_ends_once_and_cleans_up(where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.replace("{where}", where)],
        env=commands.environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "cleaned up\n", "")
