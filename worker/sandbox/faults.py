"""Faults to order, while the sandbox runs.

What the provider itself does wrong, which a look-up in the same process sees as well:

===============  ==================================================================================
``code``         the whole call answers ``code``, unbilled unless ``charged``
``item_code``    the number ``mobile`` answers ``code`` (1, -2, -3, -4, -5, -8, -9 …), until deleted
``poison``       any call with the number ``mobile`` in it is refused with ``code`` (1 or -9), until deleted
``slow``         the answer takes ``seconds`` longer
``overcharge``   the account is charged ``numbers`` more than the call is billed
===============  ==================================================================================

What goes wrong on the wire (``unruly`` does it), after the call was worked and billed unless
``processed`` is false:

===================  ==============================================================================
``hang``             no answer, the connection stays open
``reset``            TCP reset instead of an answer
``close``            the connection is closed instead of an answer
``status``           HTTP ``status`` and a page of HTML; 3xx sends a ``Location``
``truncate``         the connection closes half way through the body
``cut``              a whole HTTP message with half the JSON in it
``drip``             the body comes in ten pieces, ``seconds`` apart
``trailing_comma``   a comma before each closing bracket, as in the document's balance example
``drop``             the batch item at ``index`` is missing
``duplicate``        … is there twice
``reorder``          the batch items come in reverse order
``foreign``          … is replaced by one for a number nobody asked
``extra``            an item for a number nobody asked stands before it
``bare``             … has lost its ``result``
===================  ==============================================================================

The others last for ``calls`` calls (null: until deleted) of the ``on`` endpoint.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

from worker.carrier.wire.codes import Code

Kind = Literal[
    "code", "item_code", "poison", "slow", "overcharge",
    "hang", "reset", "close", "status", "truncate", "cut", "drip",
    "trailing_comma", "drop", "duplicate", "reorder", "foreign", "extra", "bare",
]  # fmt: skip
Endpoint = Literal["carrier", "carrier_batch", "balance"]

ON_THE_WIRE = frozenset(get_args(Kind)) - {"code", "item_code", "poison", "slow", "overcharge"}
_OF_NUMBERS = frozenset({"item_code", "poison"})
_CODES = [code.value for code in Code if code is not Code.SUCCESS]
_WITH_CODE = _OF_NUMBERS | {"code"}


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One ordered fault; unknown fields are refused."""

    kind: Kind
    # how many calls it spoils; None: until deleted
    calls: int | None = 1
    # the endpoint whose calls it spoils, or any
    on: Endpoint | Literal["any"] = "any"
    # None: -8, or 1 for ``poison``
    code: int | None = None
    mobile: str | None = None
    seconds: float = 1.0
    status: int = 502
    index: int = 0
    # whether the call is worked, and billed, before it goes wrong on the wire
    processed: bool = True
    # of ``code``: the account pays for the numbers although they get no answer
    charged: bool = False
    # of ``overcharge``
    numbers: int = 1
    # given by the book
    id: int = 0

    def __post_init__(self) -> None:
        if self.kind in _OF_NUMBERS and not self.mobile:
            raise ValueError(f"a fault of kind {self.kind} needs a mobile")
        if self.code is None:
            self.code = 1 if self.kind == "poison" else -8
        if self.calls is not None and self.calls < 1:
            raise ValueError("calls is a number from 1, or null for until it is deleted")
        if self.kind in _WITH_CODE and self.code not in _CODES:
            raise ValueError(f"code is one of {', '.join(map(str, _CODES))}")
        if not 200 <= self.status <= 599:
            raise ValueError("status is an HTTP status from 200 to 599")


class FaultBook:
    """The faults on order. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._faults: dict[int, Fault] = {}

    def add(self, fault: Fault) -> Fault:
        """Order a fault; returns it with its id."""
        with self._lock:
            ordered = msgspec.structs.replace(fault, id=next(self._ids))
            self._faults[ordered.id] = ordered
        return ordered

    def remove(self, fault_id: int) -> bool:
        """Cancel one; False if there is none of that id."""
        with self._lock:
            return self._faults.pop(fault_id, None) is not None

    def clear(self) -> None:
        """Cancel all."""
        with self._lock:
            self._faults.clear()

    def pending(self) -> list[Fault]:
        """What is on order, oldest first, with the calls each has left."""
        with self._lock:
            return [msgspec.structs.replace(fault) for fault in self._faults.values()]

    def take(self, endpoint: Endpoint, kinds: Iterable[str]) -> Fault | None:
        """The oldest fault of these kinds for a call of this endpoint; one of its calls is used up."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults.values():
                if fault.kind in kinds and fault.on in {"any", endpoint}:
                    self._use(fault)
                    return fault
        return None

    def of_numbers(self, kind: Literal["item_code", "poison"]) -> dict[str, int]:
        """The codes ordered for single numbers, by number; the oldest order of a number counts."""
        if not self._faults:
            return {}
        with self._lock:
            faults = [fault for fault in self._faults.values() if fault.kind == kind]
        return {
            fault.mobile: fault.code for fault in reversed(faults) if fault.mobile and fault.code is not None
        }

    def _use(self, fault: Fault) -> None:
        if fault.calls is not None:
            fault.calls -= 1
            if fault.calls == 0:
                del self._faults[fault.id]
