"""Who goes on when: tasks that stop at every seam, a clock that moves only by the schedule, and the trace.

A task is what a thread is in earnest: a greenlet that runs until its next call of a seam. Between two seams
nothing of another task happens, so a schedule is told by its choices alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from tests.simulation.choices import Choices

_BEGIN = datetime(2026, 1, 1, 4, tzinfo=UTC)
_NEVER = float("inf")


class ViolationError(BaseException):
    """A promise was broken; no ``except Exception`` of the code under test may swallow it."""


class Process:
    """A process: what dies, and stands still, as one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.stopped_until = 0.0

    def __repr__(self) -> str:
        return self.name


class Task(greenlet):
    """A thread of a process."""

    process: Process
    name: str
    # the seam it is about to call
    at: str
    # monotonic seconds before which it does not go on
    wake_at: float
    notes: dict[str, Any]


class Schedule:
    """The tasks of one simulated run."""

    def __init__(self, choices: Choices, *, traced: bool = False) -> None:
        self.choices = choices
        self.seconds = 1000.0
        # how far the wall clock was put forward
        self.put_forward = 0.0
        self.tasks: list[Task] = []
        self.acting = Process("nobody")
        self.quiet = False
        self._trace: list[str] | None = [] if traced else None

    # -- time ---------------------------------------------------------------------------------

    def monotonic(self) -> float:
        return self.seconds

    def now(self, _zone: Any = None) -> datetime:
        return _BEGIN + timedelta(seconds=self.seconds + self.put_forward)

    def sleep(self, seconds: float) -> None:
        """Let this task wait so long."""
        task = getcurrent()
        if isinstance(task, Task):
            task.wake_at = self.seconds + seconds
            self._stop(task, "wakes up")

    # -- tasks --------------------------------------------------------------------------------

    def spawn(self, name: str, work: Callable[[], Any]) -> Task:
        """Begin a thread of the process that acts."""
        task = Task(work)
        task.process, task.name, task.at, task.wake_at, task.notes = self.acting, name, "begins", 0.0, {}
        self.tasks.append(task)
        return task

    def turn(self, at: str) -> None:
        """Stop before a seam is called: others may have their turn first."""
        task = getcurrent()
        if isinstance(task, Task):
            task.wake_at = 0.0
            self._stop(task, at)

    def wait(self, timeout: float | None) -> None:
        task = getcurrent()
        if isinstance(task, Task):
            task.wake_at = _NEVER if timeout is None else self.seconds + timeout
            self._stop(task, "looks again")

    def _stop(self, task: Task, at: str) -> None:
        task.at = at
        if task.process.dead:
            raise GreenletExit
        task.parent.switch()
        if task.process.dead:
            raise GreenletExit

    def runnable(self) -> list[Task]:
        seconds = self.seconds
        return [
            task for task in self.tasks if task.wake_at <= seconds and task.process.stopped_until <= seconds
        ]

    def next_wake(self) -> float | None:
        """When the next task goes on by itself."""
        moments = [
            max(task.wake_at, task.process.stopped_until) for task in self.tasks if task.wake_at < _NEVER
        ]
        return min((moment for moment in moments if moment > self.seconds), default=None)

    def go_on(self, task: Task) -> None:
        """Let a task run to its next seam."""
        if self._trace is not None:
            self.note(f"{task.process} {task.name}: {task.at}")
        with self.acts(task.process):
            task.switch()
        if task.dead:
            self.tasks.remove(task)
        if task.process.dead:
            self.bury(task.process)

    @contextmanager
    def acts(self, process: Process) -> Iterator[None]:
        before, self.acting = self.acting, process
        try:
            yield
        finally:
            self.acting = before

    def bury(self, process: Process) -> None:
        """End the tasks of a dead process where they stand."""
        process.dead = True
        for task in [one for one in self.tasks if one.process is process]:
            if not task.dead:
                task.throw(GreenletExit)
            self.tasks.remove(task)

    @staticmethod
    def die() -> None:
        """End the process of this task, here."""
        task = getcurrent()
        assert isinstance(task, Task)
        task.process.dead = True
        raise GreenletExit

    @staticmethod
    def notes() -> dict[str, Any]:
        """What is noted for this task."""
        task = getcurrent()
        return task.notes if isinstance(task, Task) else {}

    # -- the trace ----------------------------------------------------------------------------

    @property
    def traced(self) -> bool:
        return self._trace is not None

    def note(self, line: str) -> None:
        if self._trace is not None:
            self._trace.append(f"{self.seconds - 1000:9.3f}  {line}")

    def trace(self) -> list[str]:
        return self._trace or []


class SimulatedCondition:
    """``threading.Condition`` among tasks: no lock is needed, for nobody is interrupted between seams."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._waiting: list[Task] = []

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def wait(self, timeout: float | None = None) -> None:
        task = getcurrent()
        if isinstance(task, Task):
            self._waiting.append(task)
            try:
                self._schedule.wait(timeout)
            finally:
                self._waiting.remove(task)

    def notify(self) -> None:
        for task in self._waiting:
            task.wake_at = 0.0

    notify_all = notify


def meet() -> None:
    """What a barrier makes threads do, which a schedule has no use for."""


class SimulatedPool:
    """``ThreadPoolExecutor`` of tasks."""

    def __init__(self, schedule: Schedule, workers: int, name: str) -> None:
        self._schedule = schedule
        self._process = schedule.acting
        self._free = workers
        self._name = name
        self._queue: deque[Callable[[], None]] = deque()

    def submit(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if work is meet:
            return future

        def run() -> None:
            try:
                future.set_result(work(*args, **kwargs))
            except Exception as exc:  # noqa: BLE001 - as the real one does
                future.set_exception(exc)
            self._free += 1
            self._start()

        self._queue.append(run)
        self._start()
        return future

    def shutdown(self, **_: Any) -> None:
        self._queue.clear()

    def _start(self) -> None:
        while self._queue and self._free:
            self._free -= 1
            with self._schedule.acts(self._process):
                self._schedule.spawn(self._name, self._queue.popleft())
