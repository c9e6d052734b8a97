"""The simulated provider: accounts that pay, subscribers that port, and the time an answer takes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from msgspec import structs
from starlette.types import ASGIApp

from worker.carrier.protocol import MAX_BATCH, Answer, Balance, CarrierLookup, FeeType, Unanswered
from worker.carrier.wire.codes import ANSWERS, Code, refusal
from worker.errors import AnswerLost, CarrierError, RequestRefused
from worker.portability.records import Status
from worker.sandbox.bill import Bill
from worker.sandbox.faults import Endpoint, FaultBook
from worker.sandbox.subscribers import subscriber

DEFAULT_APIKEY = "7c11272au708345c834b8ue81ac78972"
"""The key the provider's document uses as its example."""

DEFAULT_BALANCE = 1_000_000


@dataclass(frozen=True, slots=True)
class Latency:
    """How long an answer takes; the document: about 100 ms for one number, 1.5 s for 1000."""

    single_seconds: float = 0.1
    batch_seconds: float = 1.5
    # 0 answers at once
    scale: float = 1.0

    def of(self, numbers: int) -> float:
        """Seconds for a call of that many numbers, straight between one and 1000."""
        share = min(numbers - 1, MAX_BATCH - 1) / (MAX_BATCH - 1)
        return self.scale * (self.single_seconds + share * (self.batch_seconds - self.single_seconds))


@dataclass(slots=True)
class Account:
    """A customer of the sandbox. A prepaid one is never sold more than its balance."""

    apikey: str
    fee_type: FeeType = FeeType.PREPAID
    balance: int = DEFAULT_BALANCE
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class _Port:
    """A port ordered by hand: the operator that serves a number from then on (POSIX seconds)."""

    operator: str
    at: float


class Sandbox:
    """A provider in this process. Thread-safe; nothing but the bill log is written anywhere.

    ``billed_codes`` are the answers an account pays for. The same ``seed`` gives the same subscribers.
    """

    def __init__(
        self,
        *,
        accounts: Sequence[Account] | None = None,
        seed: int = 0,
        latency: Latency | None = None,
        billed_codes: Collection[int] = (Code.SUCCESS, Code.NOT_FOUND),
        bill_log: Path | None = None,
    ) -> None:
        self.seed = seed
        self.latency = latency or Latency()
        self.billed_codes = frozenset(int(code) for code in billed_codes)
        self.bill = Bill(bill_log)
        self.faults = FaultBook()
        self._lock = threading.Lock()
        self._initial = (list(accounts or [Account(DEFAULT_APIKEY)]), self.latency)
        self.reset()

    def reset(self) -> None:
        """Back to the beginning: accounts, latency, no faults, no ports by hand, an empty bill."""
        accounts, self.latency = self._initial
        self.faults.clear()
        self.bill.reset()
        with self._lock:
            self._accounts = {account.apikey: replace(account) for account in accounts}
            self._ports: dict[str, list[_Port]] = {}

    def account(self, apikey: str) -> CarrierLookup:
        """The look-up an account's holder has; raises ``AccountFault`` -1 or -6."""
        self.check(apikey)
        return _AccountLookup(self, apikey)

    def put_account(self, account: Account) -> None:
        """Open an account, or replace one."""
        with self._lock:
            self._accounts[account.apikey] = replace(account)

    def read_account(self, apikey: str) -> Account | None:
        """A copy of an account as it stands."""
        with self._lock:
            account = self._accounts.get(apikey)
            return replace(account) if account else None

    def port(self, mobile: str, operator: str, at: datetime | None = None) -> None:
        """Let a number be ported to ``operator`` (a code) at a time; at once if None."""
        moment = (at or datetime.now(UTC)).timestamp()
        with self._lock:
            ports = [*self._ports.get(mobile, ()), _Port(operator, moment)]
            self._ports[mobile] = sorted(ports, key=lambda port: port.at)

    def truth(self, mobile: str) -> Answer:
        """What a number's answer is at this moment, faults apart."""
        answer = subscriber(mobile, self.seed)
        for port in self._ports.get(mobile, ()):
            if port.at <= time.time() and answer.code == Code.SUCCESS:
                home = port.operator == answer.range_holder
                status = Status.NOT_PORTED if home else Status.PORTED
                answer = structs.replace(answer, status=status, current_operator=port.operator)
        return answer

    def app(self) -> ASGIApp:
        """The sandbox over HTTP: the provider's contract, its faults, and the control API."""
        from worker.sandbox.control import sandbox_app  # noqa: PLC0415 - in-process use needs no HTTP

        return sandbox_app(self)

    # --- what an account's look-up is made of ---

    def check(self, apikey: str) -> Account:
        """The live account of a key; raises ``AccountFault`` -1 or -6."""
        account = self._accounts.get(apikey)
        if account is None:
            raise refusal(Code.UNKNOWN_KEY)
        if account.disabled:
            raise refusal(Code.DISABLED)
        return account

    def ask(
        self, apikey: str, mobiles: Sequence[str], endpoint: Endpoint, timeout_seconds: float | None
    ) -> list[Answer | Unanswered]:
        """Work one call: take its price, let its time pass, answer, and give back what is not billed."""
        refused, charged = self._refused(endpoint, mobiles)
        try:
            if refused is None or charged:
                self._pay(apikey, len(mobiles))
            if refused is not None:
                raise refused
        except CarrierError as exc:
            self.bill.add(endpoint, len(mobiles), Counter({exc.code or 0: 1}), mobiles if charged else ())
            raise
        in_time = self._pass_time(endpoint, len(mobiles), timeout_seconds)
        ordered = self.faults.of_numbers("item_code")
        entries = [self._entry(mobile, ordered.get(mobile)) for mobile in mobiles]
        billed = [entry.msisdn for entry in entries if entry.code in self.billed_codes]
        self.bill.add(endpoint, len(mobiles), Counter(entry.code or 0 for entry in entries), billed)
        self._give_back(apikey, len(mobiles) - len(billed))
        overcharge = self.faults.take(endpoint, {"overcharge"})
        if overcharge is not None:
            self._give_back(apikey, -overcharge.numbers)
        if not in_time:
            raise AnswerLost("the sandbox's answer takes longer than the caller waits")
        return entries

    def balance(self, apikey: str, timeout_seconds: float | None) -> Balance:
        """An account's balance; costs nothing, and takes as long as one number does."""
        refused, _ = self._refused("balance", ())
        if refused is not None:
            raise refused
        if not self._pass_time("balance", 1, timeout_seconds):
            raise AnswerLost("the sandbox's answer takes longer than the caller waits")
        account = self.check(apikey)
        return Balance(account.fee_type, account.balance)

    def _pass_time(self, endpoint: Endpoint, numbers: int, timeout_seconds: float | None) -> bool:
        """Let the answer's time pass; False if the caller would have given up before."""
        slow = self.faults.take(endpoint, {"slow"})
        seconds = self.latency.of(numbers) + (slow.seconds if slow else 0.0)
        if timeout_seconds is not None and seconds > timeout_seconds:
            time.sleep(timeout_seconds)
            return False
        if seconds > 0:
            time.sleep(seconds)
        return True

    def _entry(self, mobile: str, ordered: int | None) -> Answer | Unanswered:
        if ordered is None:
            return self.truth(mobile)
        if ordered in _REFUSED:
            return Answer(mobile, ordered, _REFUSED[ordered])
        return Unanswered(mobile, ordered, "a fault on order")

    def _refused(self, endpoint: Endpoint, mobiles: Sequence[str]) -> tuple[CarrierError | None, bool]:
        """The refusal on order, for the call or a number in it, and whether it is charged all the same."""
        whole = self.faults.take(endpoint, {"code"})
        poison = self.faults.of_numbers("poison")
        code = whole.code if whole else next((poison[mobile] for mobile in mobiles if mobile in poison), None)
        charged = whole is not None and whole.charged
        if code in ANSWERS:
            return RequestRefused("a fault on order", code=code), charged
        return None if code is None else refusal(code), charged

    def _pay(self, apikey: str, numbers: int) -> None:
        with self._lock:
            account = self.check(apikey)
            if account.fee_type is FeeType.PREPAID and account.balance < numbers:
                raise refusal(Code.LOW_BALANCE)
            account.balance -= numbers

    def _give_back(self, apikey: str, numbers: int) -> None:
        with self._lock:
            if apikey in self._accounts:
                self._accounts[apikey].balance += numbers


_REFUSED = {-2: Status.INVALID, -3: Status.INVALID, -4: Status.UNKNOWN}


@dataclass(frozen=True, slots=True)
class _AccountLookup:
    """``CarrierLookup`` of one account, in this process: no wire, so no fault of the wire."""

    sandbox: Sandbox
    apikey: str

    def lookup(self, msisdn: str, *, timeout_seconds: float | None = None) -> Answer:
        """Ask for one number."""
        (entry,) = self.sandbox.ask(self.apikey, [msisdn], "carrier", timeout_seconds)
        if isinstance(entry, Unanswered):
            raise refusal(Code.SYSTEM_ERROR if entry.code is None else entry.code)
        return entry

    def lookup_batch(
        self, msisdns: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[Answer | Unanswered]:
        """Ask for 1 to 1000 distinct numbers."""
        return self.sandbox.ask(self.apikey, msisdns, "carrier_batch", timeout_seconds)

    def balance(self, *, timeout_seconds: float | None = None) -> Balance:
        """The account's balance."""
        return self.sandbox.balance(self.apikey, timeout_seconds)
