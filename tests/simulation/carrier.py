"""The provider in memory: who is whose subscriber when, what was billed, and every way it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.simulation.faults import Faults
from tests.simulation.invariants import Invariants
from tests.simulation.schedule import Process, Schedule
from worker.carrier.protocol import Answer, Balance, FeeType, Unanswered
from worker.errors import AccountFault, AnswerLost, CarrierError, NotSent, RequestRefused, TransientFault
from worker.portability.records import Status

HOLDER = "CMCC"
OPERATORS = ("CMCC", "CUCC", "CTCC")
TIMEOUTS = (3.0, 15.0)


@dataclass(slots=True)
class Subscriber:
    """The truth about a number."""

    msisdn: str
    code: int = 0
    # (since when, operator), oldest first
    history: list[tuple[datetime, str]] = field(default_factory=list)
    # refuses a request that names the number, with this code
    poison: int | None = None

    def operators_since(self, moment: datetime) -> set[str]:
        """Whose subscriber it has been at ``moment`` and after."""
        later = [index for index, (since, _) in enumerate(self.history) if since >= moment]
        first = (later[0] if later else len(self.history)) - 1
        return {operator for _, operator in self.history[max(0, first) :]}

    def answer(self) -> Answer:
        if self.code == -3:
            return Answer(self.msisdn, -3, Status.INVALID)
        if self.code == -4:
            return Answer(self.msisdn, -4, Status.UNKNOWN)
        operator = self.history[-1][1]
        status = Status.NOT_PORTED if operator == HOLDER else Status.PORTED
        return Answer(self.msisdn, 0, status, HOLDER, operator, "湖北-宜昌")


@dataclass(slots=True)
class Provider:
    """The provider's side: subscribers, and the account."""

    subscribers: dict[str, Subscriber]
    # look-ups left; None: billed afterwards
    balance: int | None = None
    disabled: bool = False
    down: bool = False
    # bills, and its answers are lost
    losing: bool = False
    # how long a call takes, seconds; one of these
    latencies: tuple[float, ...] = (0.0,)


class SimulatedCarrier:
    """``CarrierLookup`` for one process."""

    def __init__(
        self, schedule: Schedule, provider: Provider, faults: Faults, invariants: Invariants, process: Process
    ) -> None:
        self._schedule = schedule
        self._provider = provider
        self._faults = faults
        self._invariants = invariants
        self._process = process

    def lookup(self, msisdn: str, *, timeout_seconds: float | None = None) -> Answer:
        (answer,) = self._ask([msisdn], TIMEOUTS[0])
        if isinstance(answer, Unanswered):
            if answer.code in {-1, -5, -6}:
                raise AccountFault(answer.reason, code=answer.code)
            if answer.code in {1, -9}:
                raise RequestRefused(answer.reason, code=answer.code)
            if answer.code is None:
                raise AnswerLost(answer.reason)
            raise TransientFault(answer.reason, code=answer.code)
        return answer

    def lookup_batch(
        self, msisdns: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[Answer | Unanswered]:
        return self._ask(msisdns, TIMEOUTS[1])

    def balance(self, *, timeout_seconds: float | None = None) -> Balance:
        self._schedule.turn("asks for the balance")
        if self._provider.down or self._faults.strike("balance unreachable"):
            raise NotSent("no connection")
        if self._provider.disabled:
            raise AccountFault("disabled", code=-6)
        if self._provider.balance is None:
            return Balance(FeeType.POSTPAID, -1)
        return Balance(FeeType.PREPAID, self._provider.balance)

    def _ask(self, msisdns: Sequence[str], timeout: float) -> list[Answer | Unanswered]:
        schedule = self._schedule
        schedule.turn(f"sends a call for {len(msisdns)}")
        call = self._invariants.call_starts(self._process, msisdns)
        started = schedule.seconds
        try:
            fault = self._refusal(msisdns)
            answers: list[Answer | Unanswered] = []
            if fault is None:
                answers, fault = self._answer(call, msisdns)
            schedule.note(f"    call {call[-4:]} is under way")
            latencies = self._provider.latencies
            schedule.sleep(latencies[schedule.choices.below(len(latencies))])
        finally:
            self._invariants.call_over(call)
        if schedule.traced:
            schedule.note(f"    {self._process} call {call[-4:]} {list(msisdns)}: {fault or answers}")
        if fault is not None:
            raise fault
        # one who stood still while the answer came finds it there, however late
        if schedule.seconds - started > timeout and not self._faults.strike("late answer"):
            raise AnswerLost("no answer in time")
        return answers

    def _refusal(self, msisdns: Sequence[str]) -> CarrierError | None:  # noqa: PLR0911 - one a reason
        """Why nothing is sold."""
        provider, strike = self._provider, self._faults.strike
        if provider.down or strike("not sent"):
            return NotSent("no connection")
        if provider.disabled:
            return AccountFault("disabled", code=-6)
        if provider.balance is not None and provider.balance < len(msisdns):
            return AccountFault("no balance", code=-5)
        if strike("busy"):
            return TransientFault("busy", code=-8)
        poison = [code for m in msisdns for code in [provider.subscribers[m].poison] if code is not None]
        if poison:
            return RequestRefused("refused", code=poison[0])
        if strike("lost before it was billed"):
            return AnswerLost("reset")
        return None

    def _answer(
        self, call: str, msisdns: Sequence[str]
    ) -> tuple[list[Answer | Unanswered], CarrierError | None]:
        """Bill, and answer; an answer may be lost on its way, or a part of it missing."""
        provider, strike = self._provider, self._faults.strike
        answers: list[Answer | Unanswered] = []
        for msisdn in msisdns:
            if strike("item refused"):
                code = (-8, -9, 1)[self._schedule.choices.below(3)]
                self._invariants.troubled.add(msisdn)
                answers.append(Unanswered(msisdn, code, "refused by itself"))
                continue
            answer = provider.subscribers[msisdn].answer()
            if answer.code in {0, -4}:
                self._invariants.billed(call, msisdn)
                if provider.balance is not None:
                    provider.balance -= 1
            missing = len(msisdns) > 1 and strike("item missing")
            answers.append(Unanswered(msisdn, None, "missing") if missing else answer)
        return answers, AnswerLost("time-out") if provider.losing or strike("answer lost") else None


def subscribers(msisdns: Sequence[str], since: datetime) -> dict[str, Any]:
    """Subscribers who have never ported."""
    return {msisdn: Subscriber(msisdn, history=[(since, HOLDER)]) for msisdn in msisdns}
