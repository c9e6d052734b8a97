"""Real processes of presend: started, asked to stop, killed; each with a log of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests import commands, nursery
from tests.acceptance.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
SHOWN_CHARACTERS = 6000
"""Of each log, when a test fails."""


class Process:
    """One running command."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        env = commands.environment() | environment
        self._running = nursery.start(command, env=env, cwd=ROOT, stdout=self.log_path)

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def log(self) -> str:
        """Everything it has written so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def alive(self) -> bool:
        return self._running.poll() is None

    def wait_for(self, text: str, *, seconds: float = 20.0) -> None:
        """Wait until it has logged ``text``; a process that ends before it fails at once."""

        def seen() -> bool:
            assert self.alive or text in self.log, f"{self.name} ended with {self._running.returncode}"
            return text in self.log

        eventually(seen, f"{text!r} in the log of {self.name}", seconds=seconds)

    def signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def kill(self) -> None:
        """``kill -9``, and wait for its end."""
        self._running.kill()
        self._running.wait(timeout=10)

    def ended(self, *, seconds: float = 30.0) -> int:
        """Wait for its end; its exit code."""
        return self._running.wait(timeout=seconds)

    def stop(self, *, seconds: float = 30.0) -> int:
        """SIGTERM; its exit code."""
        if self.alive:
            self.signal(signal.SIGTERM)
        return self.ended(seconds=seconds)

    def shown(self) -> str:
        """The end of its log, for a failed test; without the lines that say a bad item was parked."""
        log = "\n".join(line for line in self.log.splitlines() if '"dead_letter_parked"' not in line)
        return f"--- {self.name} (pid {self.pid}, {len(log)} characters)\n{log[-SHOWN_CHARACTERS:]}"


def celery(*arguments: str) -> list[str]:
    """The documented way to run Celery's own commands."""
    return [sys.executable, "-m", "celery", "-A", "worker.app", *arguments]
