"""Every error presend raises, and what whoever catches it must do.

::

    PresendError
    ├── SettingsError           stop: mend the setting, start again
    ├── RequestFileError        tell whoever submits the file what to change in it
    ├── AccountError            tell whoever manages the callers' accounts what to change
    ├── ListRefused             tell whoever gave the list of numbers what to change in it
    ├── OperatorError           tell whoever manages the console's operators what to change
    ├── Rejected                park the item as a dead letter, with this reason
    ├── CarrierError
    │   ├── TransientFault      back off, ask again
    │   │   ├── NotSent         … nothing was sent, so nothing was billed
    │   │   └── AnswerLost      … the request was sent: it may have been billed
    │   ├── AccountFault        close the gate: no call can succeed until the account is mended
    │   ├── RequestRefused      isolate: bisect the batch down to the number at fault
    │   └── ContractBreach      loud: a defect of presend's own
    ├── StorageUnavailable      run the transaction again, never the call
    ├── NotConfirmed            leave it to the relay: the broker did not confirm every event
    └── StillInUse              erase the number later: a call or an event with it is on its way
"""

from __future__ import annotations


class PresendError(Exception):
    """Base of everything presend raises on purpose."""


class SettingsError(PresendError):
    """A setting is missing or wrong. The message names it and says what to write there."""


class RequestFileError(PresendError):
    """A file of requests cannot be read as a whole. The message says what to change."""


class AccountError(PresendError):
    """A caller's account cannot be made or changed so. The message says what to do instead."""


class ListRefused(PresendError):
    """A list of numbers cannot become a job; ``code`` and ``values`` make the page's sentence."""

    def __init__(self, code: str, **values: object) -> None:
        super().__init__(f"{code} {values}" if values else code)
        self.code = code
        self.values = values


class OperatorError(PresendError):
    """An operator of the console cannot be made or changed so. The message says what to do instead."""


class Rejected(PresendError):
    """An item presend cannot take; it is parked in ``dead_letter`` with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CarrierError(PresendError):
    """The provider did not answer the question; ``code`` is its error code, if it sent one."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class TransientFault(CarrierError):
    """The provider is troubled for a while (-8, HTTP 5xx, network): back off, ask again."""


class NotSent(TransientFault):
    """No connection, or no free one: the request never left, so nothing was billed."""


class AnswerLost(TransientFault):
    """The request left but no usable answer came back: it may have been billed."""


class AccountFault(CarrierError):
    """The account cannot buy (-1 key, -5 balance, -6 disabled): close the gate, lose nothing."""


class RequestRefused(CarrierError):
    """The whole request was refused for something in it (1, -9): find the number at fault."""


class ContractBreach(CarrierError):
    """The provider says presend broke its contract (-7, -10): a defect, reported loudly."""


class StorageUnavailable(PresendError):
    """Postgres did not take the transaction (down, deadlock, time-out): run it again."""


class NotConfirmed(PresendError):
    """The broker did not confirm every event before the deadline: the relay sends them again."""


class StillInUse(PresendError):
    """A number is in an open call, or an event about it is unsent: nothing was erased."""
