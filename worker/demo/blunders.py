"""Messages as bad as real ones: each becomes a dead letter with its reason, and harms no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

RECHARGE, SMS = "recharge.precheck", "sms.recheck"


def bad_items(msisdn: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Task and arguments that cannot be taken, about a number that is well."""
    order = {"order_id": "blunder-1", "mobile": msisdn, "operator": "CMCC"}
    yield RECHARGE, order | {"operator": "中国铁通"}  # a name no operator has any more
    yield RECHARGE, order | {"order_id": "blunder 2"}
    yield RECHARGE, order | {"mobile": int(msisdn)}
    yield RECHARGE, order | {"amount": 50}
    failed = {"message_id": "blunder-3", "mobile": msisdn, "operator": "CUCC", "failure_code": "MK:0001"}
    yield SMS, {name: value for name, value in failed.items() if name != "operator"}
    yield SMS, failed | {"failed_at": "yesterday"}
    yield SMS, failed | {"mobile": f"{msisdn[:3]}****{msisdn[7:]}"}


def bulk_with_a_bad_item(msisdns: list[str], bad: str) -> tuple[str, dict[str, Any]]:
    """A ``*_many`` message whose last item is bad: that one alone becomes a dead letter."""
    items = [
        {"message_id": f"mixed-{index}", "mobile": each, "operator": "CMCC", "failure_code": "MK:0001"}
        for index, each in enumerate([*msisdns, bad])
    ]
    items[-1]["mobile"] = f"{bad}x"
    return f"{SMS}_many", {"items": items}


def conflict(msisdns: tuple[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same order twice, about two numbers: the first stands, the second is the dead letter."""
    for msisdn in msisdns:
        yield RECHARGE, {"order_id": "order-of-two", "mobile": msisdn, "operator": "CMCC"}
