"""A worker of the lane sms that one number kills, under presend's own supervisor.

``python -m tests.acceptance.poisoned HOW NUMBER``. HOW: ``before`` or ``after`` the provider call that has
the number in it the process kills itself as a segmentation fault would; ``raises`` deciding it raises a
ValueError; ``client`` the provider's client raises one after the call.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from worker import logs
from worker.carrier.client import HttpCarrier
from worker.portability.rules import Rules
from worker.processes import role, supervisor
from worker.processes.supervisor import Supervisor


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise() -> None:
    raise ValueError("a defect")


def _around_calls(number: str, *, before: Callable[[], None], after: Callable[[], None]) -> None:
    def wrapped(method: Callable[[HttpCarrier, Any], Any]) -> Callable[[HttpCarrier, Any], Any]:
        def call(carrier: HttpCarrier, asked: Any) -> Any:
            poisoned = number == asked or number in asked
            if poisoned:
                before()
            answer = method(carrier, asked)
            if poisoned:
                after()
            return answer

        return call

    for name in ("lookup", "lookup_batch"):
        setattr(HttpCarrier, name, wrapped(getattr(HttpCarrier, name)))


def _around_decisions(number: str) -> None:
    decide = Rules.decide

    def deciding(rules: Rules, request: Any, finding: Any) -> Any:
        if request.msisdn == number:
            _raise()
        return decide(rules, request, finding)

    Rules.decide = deciding  # type: ignore[method-assign]


def _nothing() -> None:
    pass


def poison(how: str, number: str) -> None:
    """Make the number deadly in this process."""
    if how == "before":
        _around_calls(number, before=_die, after=_nothing)
    elif how == "after":
        _around_calls(number, before=_nothing, after=_die)
    elif how == "client":
        _around_calls(number, before=_nothing, after=_raise)
    else:
        _around_decisions(number)


def main(arguments: Sequence[str]) -> int:
    """The supervisor, or with a parent's pid the process it runs."""
    how, number, *parent = arguments
    if parent:
        role.die_with(int(parent[0]))
        sys.argv = ["-m", "tests.acceptance.poisoned", *arguments]
        poison(how, number)
        return role.run("sms")
    logs.configure(json=True)
    supervisor.LONGEST_PAUSE_SECONDS = supervisor.FIRST_PAUSE_SECONDS  # six deaths need no patience here
    command = [sys.executable, "-m", "tests.acceptance.poisoned", how, number, str(os.getpid())]
    return Supervisor({"sms": command}).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
