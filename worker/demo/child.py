"""``python -m worker.demo.child PARENT_PID COMMAND …``: a presend command that ends with its parent.

The command alone would outlive a ``kill -9`` of whoever started it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from worker.demo.places import Places

_END_SECONDS = 6.0
"""Workers finish the calls in flight (1.5 s at most) and hand the rest back."""
_FORCED_SECONDS = 2.0

Process = subprocess.Popen[str]


@contextmanager
def running(
    arguments: Sequence[str], *, places: Places, settings: Mapping[str, str], output: int | None = None
) -> Iterator[Process]:
    """Run a presend command out of the terminal's reach until the block ends.

    Main thread only: Linux tells a child that the thread which started it is gone. The caller's own
    ``PRESEND_*`` stay out, for they name engines that are none of the demo's; nobody scrapes its processes.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PRESEND_")}
    with places.open_log() as log:
        process = subprocess.Popen(  # noqa: S603 - our own
            [sys.executable, "-P", "-m", "worker.demo.child", str(os.getpid()), *arguments],
            env={**environment, "PRESEND_METRICS_PORT": "0", **settings},
            stdin=subprocess.DEVNULL,
            stdout=log if output is None else output,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def end_leftovers() -> None:
    """Kill whatever this process started and did not get to know: a signal can fall between the two."""
    try:
        psutil: Any = import_module("psutil")
    except ModuleNotFoundError:  # it comes with the engines, so there were none
        return
    left = psutil.Process().children(recursive=True)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=_FORCED_SECONDS)


def _end(process: Process) -> None:
    for seconds in (_END_SECONDS, _FORCED_SECONDS):
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        break
    if process.stdout is not None:
        process.stdout.close()


def main(parent: str, *arguments: str) -> None:
    """Be the command until it, or the parent, ends."""
    from worker.processes.role import die_with  # noqa: PLC0415 - only a child needs it

    die_with(int(parent))
    from worker.cli import main as presend  # noqa: PLC0415

    presend(arguments, prog_name="presend")


if __name__ == "__main__":
    main(*sys.argv[1:])
