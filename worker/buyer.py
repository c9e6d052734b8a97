"""Step 3: ask the provider, and account for every call.

Each HTTP call is named in ``lookup_call`` before it is made. A refused batch is halved until the number
at fault stands alone, so that its 999 neighbours are answered; an account fault ends the purchase at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from worker import logs, tracing
from worker.carrier.protocol import Answer, CarrierLookup, FeeType, Unanswered
from worker.errors import (
    AccountFault,
    AnswerLost,
    CarrierError,
    ContractBreach,
    RequestRefused,
    StorageUnavailable,
    TransientFault,
)
from worker.metrics import provider
from worker.portability.records import Status
from worker.purchase import Bought, Purchase
from worker.storage import calls
from worker.storage.calls import Call, EndedCall
from worker.storage.ids import new_id
from worker.storage.store import Store

log = logs.get(__name__)

TWO_REFUSED = "the provider refuses one number after the other with code 1, while /balance is well"

_ACCOUNT_CODES = {-1, -5, -6}
_NO_BALANCE = -5
_MARGIN_SECONDS = 5.0
"""A call's numbers are held this much longer than its time-out: the time to commit its answer."""


class Buyer:
    """Makes provider calls for numbers that are held in ``in_flight``."""

    def __init__(
        self,
        carrier: CarrierLookup,
        store: Store,
        *,
        timeout_seconds: tuple[float, float],
        billed_codes: frozenset[int],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._carrier = carrier
        self._store = store
        self._single_seconds, self._batch_seconds = timeout_seconds
        self._billed_codes = billed_codes
        self._now = now
        # the numbers refused with 1 since one was answered last; threads may race for them, to no harm
        self._refused_alone: set[str] = set()

    def hold_seconds(self, numbers: int) -> float:
        """How long a call for so many numbers may hold them."""
        return (self._single_seconds if numbers == 1 else self._batch_seconds) + _MARGIN_SECONDS

    def buy(self, call: Call, msisdns: list[str]) -> Purchase:
        """Ask for numbers that ``call`` holds, in this order; each ends in ``bought`` or ``unanswered``."""
        purchase = Purchase(call.id)
        parts = deque([(call, msisdns)])
        while parts:
            part, numbers = parts.popleft()
            if purchase.account_fault or purchase.lost or purchase.defect:
                self._end(purchase, part, numbers, calls.REFUSED, billed=0)
                self._leave(purchase, numbers, maybe_billed=False)
                continue
            try:
                halves = self._ask(purchase, part, numbers)
            except Exception as exc:  # noqa: BLE001 - raised again once the call's end is stored
                purchase.defect = exc
                self._end(purchase, part, numbers, calls.LOST, billed=None, unanswered=numbers)
                self._leave(purchase, numbers, maybe_billed=True)
                continue
            for half in halves:
                parts += self._named(purchase, part, half)
        return purchase

    def _ask(self, purchase: Purchase, call: Call, numbers: list[str]) -> list[list[str]]:
        """Make one call; return the groups of its numbers that have to be asked again by themselves."""
        provider.asked(call.lane, len(numbers))
        try:
            with tracing.step("provider call", call_id=call.id, numbers=len(numbers)):
                answers = self._look_up(numbers)
        except RequestRefused as exc:
            provider.failed(call.lane, exc.code, numbers=len(numbers), maybe_billed=False)
            return self._refused(purchase, call, numbers, exc)
        except AccountFault as exc:
            provider.failed(call.lane, exc.code, numbers=len(numbers), maybe_billed=False)
            parts = self._cut_to_balance(numbers) if exc.code == _NO_BALANCE else []
            if parts:
                self._end(purchase, call, [], calls.REFUSED, billed=0)
                return parts
            self._stopped(purchase, call, numbers, exc)
        except AnswerLost as exc:
            provider.failed(call.lane, exc.code, numbers=len(numbers), maybe_billed=True)
            self._failed(purchase, call, numbers, exc, outcome=calls.LOST, billed=None)
        except (TransientFault, ContractBreach) as exc:
            provider.failed(call.lane, exc.code, numbers=len(numbers), maybe_billed=False)
            self._failed(purchase, call, numbers, exc, outcome=calls.REFUSED, billed=0)
        else:
            return self._answered(purchase, call, answers)
        return []

    def _look_up(self, numbers: list[str]) -> Sequence[Answer | Unanswered]:
        if len(numbers) == 1:
            return [self._carrier.lookup(numbers[0])]
        return self._carrier.lookup_batch(numbers)

    def _answered(
        self, purchase: Purchase, call: Call, answers: Sequence[Answer | Unanswered]
    ) -> list[list[str]]:
        missing = [answer for answer in answers if isinstance(answer, Unanswered)]
        billed, now = 0, self._now()
        for answer in answers:
            if isinstance(answer, Answer):
                self._refused_alone.clear()
                purchase.bought[answer.msisdn] = Bought(answer, call, now)
                billed += answer.code in self._billed_codes
        alone: list[list[str]] = []
        for item in missing:
            if item.code in _ACCOUNT_CODES:
                purchase.account_fault = AccountFault(item.reason, code=item.code)
                self._leave(purchase, [item.msisdn], maybe_billed=False)
            elif item.code == 1:
                alone.append([item.msisdn])
            else:
                self._leave(purchase, [item.msisdn], maybe_billed=item.code is None)
        nameless = [item.msisdn for item in missing if item.code is None]
        passing = any(item.code not in {1, *_ACCOUNT_CODES} for item in missing)
        asked_again = {msisdn for group in alone for msisdn in group}
        settled = [answer.msisdn for answer in answers if answer.msisdn not in asked_again]
        # -8 of one item among answered ones is that number's trouble, not the provider's
        purchase.lost = purchase.lost or bool(nameless) or (passing and len(missing) == len(answers))
        outcome = calls.LOST if nameless else calls.ANSWERED
        codes = [answer.code for answer in answers]
        provider.answered(call.lane, codes, billed=billed, unanswered=len(nameless))
        self._end(purchase, call, settled, outcome, billed=billed, unanswered=nameless)
        return alone

    def _refused(
        self, purchase: Purchase, call: Call, numbers: list[str], refusal: RequestRefused
    ) -> list[list[str]]:
        """Find the number at fault, once the account itself is known to be well."""
        fault = None if purchase.account_well else self._account_fault()
        purchase.account_well = fault is None
        if fault is not None:
            self._stopped(purchase, call, numbers, fault)
            return []
        if len(numbers) == 1 and refusal.code == 1:
            if self._another_in_a_row(purchase, numbers[0]):
                self._stopped(purchase, call, numbers, AccountFault(TWO_REFUSED, code=refusal.code))
                return []
            answer = Answer(numbers[0], code=1, status=Status.INVALID)
            purchase.bought[numbers[0]] = Bought(answer, call, self._now())
            self._end(purchase, call, numbers, calls.ANSWERED, billed=0)
            return []
        if len(numbers) == 1:
            purchase.refused[numbers[0]] = refusal.code
            self._failed(purchase, call, numbers, refusal, outcome=calls.REFUSED, billed=0)
            return []
        log.warning("batch_halved", batch_id=call.batch_id, numbers=len(numbers), code=refusal.code)
        self._end(purchase, call, [], calls.REFUSED, billed=0)
        middle = len(numbers) // 2
        return [numbers[:middle], numbers[middle:]]

    def _another_in_a_row(self, purchase: Purchase, msisdn: str) -> bool:
        """Whether another number was refused just so, and none was answered since: not the number's fault.

        One that is refused again is at fault all the same: the gate closed the first time, and ``/balance``
        was found well before it opened. Otherwise two bad numbers would close it for ever.
        """
        if any(bought.answer.code != 1 for bought in purchase.bought.values()):
            return False
        first, again = not self._refused_alone, msisdn in self._refused_alone
        self._refused_alone.add(msisdn)
        return not (first or again)

    def _account_fault(self) -> AccountFault | None:
        """Ask ``/balance`` whether a refusal was about the account: 1, -1 and -6 there say so."""
        try:
            self._carrier.balance()
        except AccountFault as exc:
            return exc
        except RequestRefused as exc:
            return AccountFault(str(exc), code=exc.code)
        except CarrierError:
            return None
        return None

    def _cut_to_balance(self, numbers: list[str]) -> list[list[str]]:
        """What a prepaid balance still pays for, and the rest; nothing where it pays for none of these."""
        try:
            balance = self._carrier.balance()
        except CarrierError:
            return []
        if balance.fee_type is not FeeType.PREPAID or not balance.can_buy or len(numbers) == 1:
            return []
        paid = min(balance.balance, len(numbers) - 1)  # fewer each time, whatever /balance says
        log.warning("batch_cut_to_balance", numbers=len(numbers), paid=paid)
        return [numbers[:paid], numbers[paid:]]

    def _stopped(self, purchase: Purchase, call: Call, numbers: Sequence[str], fault: AccountFault) -> None:
        """End the purchase: the account cannot buy, and these numbers were not sold."""
        purchase.account_fault = fault
        self._end(purchase, call, numbers, calls.REFUSED, billed=0)
        self._leave(purchase, numbers, maybe_billed=False)

    def _failed(
        self,
        purchase: Purchase,
        call: Call,
        numbers: Sequence[str],
        fault: CarrierError,
        *,
        outcome: str,
        billed: int | None,
    ) -> None:
        report = log.error if isinstance(fault, ContractBreach | RequestRefused) else log.warning
        report(
            "call_failed",
            batch_id=call.batch_id,
            lane=call.lane,
            numbers=len(numbers),
            fault=type(fault).__name__,
            code=fault.code,
            error=str(fault),
        )
        # the provider that refuses one number is well; one that refuses every number is not
        purchase.lost = purchase.lost or not isinstance(fault, RequestRefused) or len(purchase.refused) > 1
        unanswered = numbers if billed is None else ()
        self._end(purchase, call, numbers, outcome, billed=billed, unanswered=unanswered)
        self._leave(purchase, numbers, maybe_billed=billed is None)

    def _named(
        self, purchase: Purchase, parent: Call, numbers: Sequence[str]
    ) -> Iterable[tuple[Call, list[str]]]:
        """Name a further call for what ``parent`` still holds of numbers; without its name it is not made."""
        call = replace(
            parent,
            id=new_id(),
            sent_at=self._now(),
            numbers=len(numbers),
            hold_seconds=self.hold_seconds(len(numbers)),
        )
        try:
            held = self._store.split(call, numbers, from_id=parent.id)
        except StorageUnavailable as exc:
            log.warning("call_not_made", batch_id=call.batch_id, numbers=len(numbers), error=str(exc))
            held = set()
        self._leave(purchase, [each for each in numbers if each not in held], maybe_billed=False)
        ours = [each for each in numbers if each in held]
        return [(replace(call, numbers=len(ours)), ours)] if ours else []

    def _end(
        self,
        purchase: Purchase,
        call: Call,
        numbers: Sequence[str],
        outcome: str,
        *,
        billed: int | None,
        unanswered: Sequence[str] = (),
    ) -> None:
        answered_at = None if outcome == calls.LOST and billed is None else self._now()
        purchase.ended.append(EndedCall(call, numbers, outcome, answered_at, billed, unanswered))

    @staticmethod
    def _leave(purchase: Purchase, numbers: Sequence[str], *, maybe_billed: bool) -> None:
        for msisdn in numbers:
            purchase.unanswered[msisdn] = maybe_billed
