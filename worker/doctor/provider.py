"""The provider: whether it knows our key, sells to us, and what its clock says. Nothing is bought."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from worker.carrier.client import HttpCarrier
from worker.carrier.protocol import Balance, FeeType
from worker.doctor.finding import Finding, clock, fail, ok, warn
from worker.errors import AccountFault, CarrierError

if TYPE_CHECKING:
    from worker.config import Settings

_LOW = 1000
"""Look-ups: one batch."""
_SUBJECT = "provider"


def examine(settings: Settings) -> Iterator[Finding]:
    """Ask for the balance, which costs nothing."""
    if not settings.provider_apikey:
        yield warn(
            _SUBJECT,
            "PRESEND_PROVIDER_APIKEY is not set",
            "what calls the provider (worker, serve, check) needs it: write the 32-character key there",
        )
        return
    carrier = HttpCarrier(
        settings.provider_url,
        settings.provider_apikey,
        single_timeout_seconds=settings.provider_timeout_seconds[0],
    )
    try:
        asked = time.time()
        balance = carrier.balance()
        took = time.time() - asked
        yield _account(balance)
        date = carrier.latest_date
        if date is not None:
            said = parsedate_to_datetime(date).timestamp() + 0.5  # it has whole seconds
            yield clock(f"{_SUBJECT}, clock", said - asked - took / 2)
    except AccountFault as exc:
        yield fail(
            _SUBJECT, f"it refuses the account: {exc}", "mend PRESEND_PROVIDER_APIKEY, or have it unlocked"
        )
    except CarrierError as exc:
        yield fail(_SUBJECT, str(exc), "see PRESEND_PROVIDER_URL, the network, and whether it is up")
    finally:
        carrier.close()


def _account(balance: Balance) -> Finding:
    words = f"{balance.fee_type}, balance {balance.balance:,}"
    if not balance.can_buy:
        return fail(_SUBJECT, words, "top it up: nothing can be bought, and the gate is or will be closed")
    if balance.fee_type is FeeType.PREPAID and balance.balance < _LOW:
        return warn(_SUBJECT, words, "top it up: less than one batch is left")
    return ok(_SUBJECT, words)
