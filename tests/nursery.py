"""A nursery: a process that has imported everything and opened nothing, and forks what a test starts.

Imports are most of what a short-lived process costs, and the tests start some hundred. What is forked does
what ``python -m MODULE`` does, the imports apart. Only pytest enables it: ``make faults`` and ``make bench``
start each process from scratch, and so do the supervisor, ``presend demo`` and ``make``, in the tests too.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_OURS = ("celery", "worker.", "tests.acceptance.", "tests.faults.")
_POLL_SECONDS = 0.005
_IMPORTED = (
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.solo",
    "sqlalchemy.dialects.postgresql.psycopg",
    "tasks.precheck",
    "tasks.recheck",
    "tests.acceptance.producer",
    "tests.faults.guards",
    "tests.faults.points",
    "tests.faults.tracing",
    "tests.faults.traffic",
    "uvicorn",
    "worker.bootstrap",
    *(
        f"worker.cli.{module.name}"
        for module in pkgutil.iter_modules([str(ROOT / "worker" / "cli")])
        if module.name != "__main__"
    ),
    "worker.consumer",
    "worker.publisher.amqp",
    "worker.publisher.stream",
    "worker.rabbitmq_broker.transport",
    "worker.redis_broker.transport",
    "worker.sandbox.serving",
    "worker.serve.running",
)

_nurseries: list[Nursery] = []


@dataclass
class Child:
    """A forked process, with what the tests use of ``subprocess.Popen``."""

    nursery: Nursery
    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended; negative: the signal that ended it."""
        if self.returncode is None:
            self.returncode = self.nursery.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its end; ``subprocess.TimeoutExpired`` where that does not come."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(_POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """``kill -9``."""
        self.send_signal(9)


@contextmanager
def enabled() -> Iterator[None]:
    """Let this process fork its children meanwhile."""
    _nurseries.append(Nursery())
    try:
        yield
    finally:
        _nurseries.pop().close()


def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdout: Path,
    stderr: Path | None = None,
    stdin: Path = Path(os.devnull),
) -> Child | subprocess.Popen[bytes]:
    """Start a command, errors beside its output where not said otherwise.

    From scratch if nobody enabled this, or it is not ``python -m`` a module of ours.
    """
    for nursery in _nurseries:
        child = nursery.fork(command, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr)
        if child is not None:
            return child
    with ExitStack() as files:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=files.enter_context(stdin.open("rb")),
            stdout=files.enter_context(stdout.open("wb")),
            stderr=subprocess.STDOUT if stderr is None else files.enter_context(stderr.open("wb")),
        )


@dataclass
class Nursery:
    """The nursery of this process, begun with the first fork; it ends with this process."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _process: subprocess.Popen[bytes] | None = None
    _socket: socket.socket | None = None
    _line: Any = None

    def fork(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdin: Path,
        stdout: Path,
        stderr: Path | None,
    ) -> Child | None:
        """Start a command; None if it is not ``python -m`` a module of ours, or one that starts others."""
        words = list(command)
        apart = words[1:2] == ["-P"]
        at = 2 if apart else 1
        if words[0] != sys.executable or words[at] != "-m" or not words[at + 1].startswith(_OURS):
            return None
        if words[at + 1] == "worker.cli" and words[at + 2 : at + 3] in (["demo"], ["worker"]):
            return None
        stdout.write_bytes(b"")  # whoever looks into it at once finds it
        pid = self.ask(
            module=words[at + 1],
            arguments=words[at + 2 :],
            apart=apart,
            env=dict(env),
            cwd=str(cwd),
            stdin=str(stdin),
            stdout=str(stdout),
            stderr=None if stderr is None else str(stderr),
        )
        return Child(self, pid)

    def ask(self, **request: Any) -> Any:
        """Send a request; its answer."""
        with self._lock:
            if self._line is None:
                self._begin()
            self._line.write(json.dumps(request) + "\n")
            self._line.flush()
            return json.loads(self._line.readline())

    def close(self) -> None:
        """End it; what it forked goes on."""
        if self._process is not None and self._socket is not None:
            self._line.close()
            self._socket.close()
            self._process.wait(timeout=10)

    def _begin(self) -> None:
        self._socket, its = socket.socketpair()
        self._line = self._socket.makefile("rw")
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.nursery", str(its.fileno())],
                cwd=ROOT,
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
            )


def main(line: socket.socket) -> None:
    """Be the nursery, until nobody asks any more; in a child: be what was asked for."""
    for module in _IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # or each child looks through all of it once more when it ends, for half a second
    requests = line.makefile("rw")
    while text := requests.readline():
        request = json.loads(text)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                requests.close()
                line.close()
                _become(request)
                return
        requests.write(json.dumps(answer) + "\n")
        requests.flush()


def _become(request: dict[str, Any]) -> None:
    for number, (path, how) in enumerate(
        [
            (request["stdin"], os.O_RDONLY),
            (request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (request["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ]
    ):
        if path is None:  # errors, beside the output
            os.dup2(1, number)
            continue
        file = os.open(path, how, 0o644)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    sys.path = [path for path in sys.path if path != str(ROOT)]
    if not request["apart"]:
        sys.path.insert(0, request["cwd"])
    sys.argv = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
