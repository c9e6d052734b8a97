"""What a new answer changes: the stored record, and the observed change of operator."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from worker.portability.events import port_event_id
from worker.portability.records import AnsweredFrom, Finding, PortChange, PortRecord, Status

PORT_LOCK = timedelta(days=120)
"""The regulator forbids another port this long after one."""

_NAMES_NO_OPERATOR = frozenset({Status.UNKNOWN, Status.INVALID})


def merged(old: PortRecord | None, new: PortRecord) -> PortRecord:
    """The record to store when ``new`` was learned and ``old`` is stored.

    Only a later observation replaces a record, so a late answer cannot undo a newer. One that names no
    operator (unknown, invalid) keeps what was last known. ``changed_at`` moves when the operator does.
    """
    if old is None:
        return new
    if new.observed_at <= old.observed_at:
        return old
    if new.status in _NAMES_NO_OPERATOR:
        return replace(
            old,
            status=new.status,
            observed_at=new.observed_at,
            source=new.source,
            answered_at=new.answered_at,
        )
    return replace(new, changed_at=new.observed_at if _moved(old, new) else old.changed_at)


def observed_change(old: PortRecord | None, new: PortRecord, *, batch_id: str) -> PortChange | None:
    """The change of operator that ``new`` shows against the stored ``old``, if it shows one."""
    if old is None or new.observed_at <= old.observed_at or not _moved(old, new):
        return None
    assert old.current_operator is not None
    assert new.current_operator is not None
    return PortChange(
        msisdn=new.msisdn,
        donor=old.current_operator,
        recipient=new.current_operator,
        observed_after=old.observed_at,
        observed_before=new.observed_at,
        doubtful=doubtful(old, new),
        batch_id=batch_id,
        event_id=port_event_id(new.msisdn, new.observed_at),
    )


def doubtful(old: PortRecord, new: PortRecord) -> bool:
    """Whether a change breaks the regulator's rules: within 120 days of the last, or of an MVNO number."""
    if Status.VIRTUAL in (old.status, new.status):
        return True
    return old.changed_at is not None and new.observed_at - old.changed_at < PORT_LOCK


def finding_of(record: PortRecord, answered_from: AnsweredFrom) -> Finding:
    """What a stored record says to a request, in the words a live answer would use.

    An unknown or invalid number's answer names no operator; the last one known stays in the record.
    """
    if record.status in _NAMES_NO_OPERATOR:
        return Finding(status=record.status, observed_at=record.observed_at, answered_from=answered_from)
    return Finding(
        status=record.status,
        range_holder=record.range_holder,
        current_operator=record.current_operator,
        area=record.area,
        observed_at=record.observed_at,
        answered_from=answered_from,
    )


def _moved(old: PortRecord, new: PortRecord) -> bool:
    """Whether both records name an operator, and not the same one."""
    if old.current_operator is None or new.current_operator is None:
        return False
    return new.current_operator != old.current_operator
