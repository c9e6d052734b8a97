"""``presend`` as a user runs it: a process of its own, with settings in its environment alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from tests import nursery

T = TypeVar("T")
APIKEY = "7c11272au708345c834b8ue81ac78972"
_SECONDS = 60.0
_SIZE = {"COLUMNS", "LINES"}


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with no settings but these, ``broker_url=...``; no process is scraped.

    Nor is there a terminal's size, which pytest gives its processes.
    """
    ours = (name for name in os.environ if not name.startswith("PRESEND_") and name not in _SIZE)
    rest = {name: os.environ[name] for name in ours}
    settings = {"metrics_port": "0"} | settings
    return rest | {f"PRESEND_{name.upper()}": value for name, value in settings.items()}


def command(*arguments: str) -> list[str]:
    """The command line of ``presend ARGUMENTS``."""
    return [sys.executable, "-P", "-m", "worker.cli", *arguments]


def presend(
    *arguments: str, env: Mapping[str, str], stdin: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``presend ARGUMENTS`` to its end."""
    with TemporaryDirectory() as folder:
        given, out, err = (Path(folder) / name for name in ("stdin", "stdout", "stderr"))
        given.write_bytes(stdin or b"")
        words = command(*arguments)
        running = nursery.start(words, env=env, cwd=Path.cwd(), stdin=given, stdout=out, stderr=err)
        try:
            code = running.wait(timeout=_SECONDS)
        finally:
            running.kill()  # of one that has ended nothing is left to kill
        done = subprocess.CompletedProcess(words, code, out.read_text("utf-8"), err.read_text("utf-8"))
    assert "Traceback" not in done.stderr, done.stderr
    return done


def until(found: Callable[[], T], *, seconds: float = 30.0, what: str = "the condition") -> T:
    """Wait until ``found`` returns something; return it."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie does not."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return not _is_zombie(pid)
    return False


def _is_zombie(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False  # no /proc here, or it is gone: the next look tells
