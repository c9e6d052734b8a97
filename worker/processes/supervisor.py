"""Keeps one process a role running: starts again what died, ends all together.

Processes are fresh interpreters, not forks: connections and threads are never inherited. Each leads a
session of its own, so a Ctrl-C reaches it once, through the supervisor, and not twice.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from worker import logs
from worker.processes.role import EXIT_CONFIG, GRACE_SECONDS

log = logs.get(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 4.0
"""Before a process is started again: the pause doubles with each quick death. A message that kills it does
so six times before it is parked, and the others must not wait for minutes meanwhile."""
SETTLED_SECONDS = 30.0
"""A process that lived so long did not die of its start: the pause begins anew."""
_LOOK_SECONDS = 1.0
_TIMES = ("first", "second", "third")
_ENDING = (signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL)
"""What processes get at the first, second and third request to end."""

_HINTS = (
    "what is in flight is finished; another signal does not wait",
    "what is in flight is not waited for, and comes again",
    "what has not ended is killed; what it held comes again",
)


def command(role: str) -> list[str]:
    """Return the command line of a role's process, child of this one."""
    return [sys.executable, "-P", "-m", "worker.processes.role", role, str(os.getpid())]


@dataclass(slots=True)
class Child:
    """A role, its process while there is one, and when it is to start."""

    role: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    # monotonic seconds
    started_at: float = 0.0
    start_at: float = 0.0
    quick_deaths: int = 0

    def start(self, now: float) -> None:
        """Start the process."""
        # Logs go to stderr; stdout is only Celery's words to people who start it by hand.
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self.started_at = now
        log.info("process_started", role=self.role, pid=self.process.pid)

    def died(self, now: float) -> float:
        """Note a death; return the seconds until the next start."""
        self.process = None
        self.quick_deaths = 0 if now - self.started_at >= SETTLED_SECONDS else self.quick_deaths + 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** max(0, self.quick_deaths - 1))
        self.start_at = now + pause
        return pause


@dataclass(slots=True)
class Supervisor:
    """Runs the commands, one process each, until a signal or an exit code 78 ends all."""

    # by role
    commands: Mapping[str, Sequence[str]]
    grace_seconds: float = GRACE_SECONDS
    clock: Callable[[], float] = time.monotonic
    _children: list[Child] = field(default_factory=list, init=False)
    # signals that asked to end, and how many of them were passed on
    _asked: int = field(default=0, init=False)
    _passed_on: int = field(default=0, init=False)
    # monotonic seconds past which the next harder signal is due
    _patience_ends: float = field(default=0.0, init=False)
    _exit_code: int = field(default=0, init=False)
    # roles whose process, asked to end, did not finish what it had in flight
    _cut_off: list[str] = field(default_factory=list, init=False)

    def run(self) -> int:
        """Return the exit code once every process has ended: 0, or 78 where one found a wrong setting.

        Main thread only: it handles SIGTERM, SIGINT and SIGHUP meanwhile.
        """
        self._children = [Child(role, line) for role, line in self.commands.items()]
        with self._signals() as woken:
            try:
                while not self._ended():
                    self._start_due()
                    woken(self._pause())
                    self._bury_dead()
                    self._end_if_asked()
            finally:
                self._signal_all(signal.SIGKILL)  # only where a defect of ours ended the loop
        if self._cut_off:
            roles = ", ".join(self._cut_off)
            log.warning("supervisor_ended", exit_code=self._exit_code, cut_off=roles, hint=_HINTS[1])
        else:
            log.info("supervisor_ended", exit_code=self._exit_code)
        return self._exit_code

    def _ended(self) -> bool:
        return self._asked > 0 and not any(child.process for child in self._children)

    def _start_due(self) -> None:
        now = self.clock()
        for child in self._children:
            if not self._asked and child.process is None and child.start_at <= now:
                child.start(now)

    def _pause(self) -> float:
        """Seconds until something is due though no signal comes."""
        due = [child.start_at for child in self._children if child.process is None and not self._asked]
        if self._asked:
            due.append(self._patience_ends)
        return max(0.0, min([_LOOK_SECONDS, *(moment - self.clock() for moment in due)]))

    def _bury_dead(self) -> None:
        now = self.clock()
        for child in self._children:
            if child.process is None or (code := child.process.poll()) is None:
                continue
            pid = child.process.pid
            pause = child.died(now)
            if self._asked:
                log.info("process_ended", role=child.role, pid=pid, exit_code=code)
                if code not in {0, EXIT_CONFIG}:
                    self._cut_off.append(child.role)
            elif code == EXIT_CONFIG:
                log.error("process_cannot_run", role=child.role, pid=pid, next_step="see its lines above")
                self._exit_code = EXIT_CONFIG
                self._asked = 1
            else:
                log.warning("process_died", role=child.role, pid=pid, **_how(code), starts_in_seconds=pause)

    def _end_if_asked(self) -> None:
        """Pass each request to end on as a harder signal; so does the end of patience."""
        if not self._asked:
            return
        overdue = self._passed_on and self.clock() >= self._patience_ends
        if overdue:
            self._asked = max(self._asked, self._passed_on + 1)
        if self._asked > self._passed_on:
            self._passed_on = self._asked
            self._patience_ends = self.clock() + (_LOOK_SECONDS if overdue else self.grace_seconds)
            harder = min(self._asked, len(_ENDING)) - 1
            log.info(
                "ending",
                asked="patience is over" if overdue else f"{_TIMES[harder]} signal",
                signal=_ENDING[harder].name,
                processes=self._signal_all(_ENDING[harder]),
                hint=_HINTS[harder],
            )

    def _signal_all(self, number: signal.Signals) -> int:
        alive = [child.process for child in self._children if child.process is not None]
        for process in alive:
            process.send_signal(number)
        return len(alive)

    def _ask_to_end(self, _signal: int, _frame: FrameType | None) -> None:
        self._asked += 1

    @contextmanager
    def _signals(self) -> Iterator[Callable[[float], None]]:
        """Handle signals; yields a wait that any of them, a child's death included, cuts short."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        to_end = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._ask_to_end) for number in to_end}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

        def wait(seconds: float) -> None:
            if select.select([reader], [], [], seconds)[0]:
                reader.recv(4096)

        try:
            yield wait
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            reader.close()
            writer.close()


def _how(code: int) -> dict[str, object]:
    return {"signal": signal.Signals(-code).name} if code < 0 else {"exit_code": code}
