"""Port records: what is known of each number, and the changes of operator that were observed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import astuple
from sqlalchemy import Connection, text

from worker.portability.records import PortChange, PortRecord, Status
from worker.storage import statements
from worker.storage.arrays import array, columns, selecting
from worker.storage.schema import port_change, port_record
from worker.storage.statements import Statement

_FIELDS, _CHANGE_FIELDS = PortRecord.__struct_fields__, PortChange.__struct_fields__
_COLUMNS = ", ".join(f"p.{name}" for name in _FIELDS)

_READ = text(f"SELECT {_COLUMNS} FROM port_record p WHERE p.msisdn = ANY(CAST(:msisdns AS bigint[]))")  # noqa: S608

OBSERVED_SINCE = "SELECT FROM port_record p WHERE p.msisdn = n.msisdn AND p.observed_at > :since"
"""As a subquery of a statement whose ``n`` are numbers: whether one's record was observed since."""

_LOCK = text(f"""
    SELECT {_COLUMNS} FROM port_record p WHERE p.msisdn = ANY(CAST(:msisdns AS bigint[]))
    ORDER BY p.msisdn FOR UPDATE
""")  # noqa: S608 - the columns are ours

STORED_SINCE = "presend stores this batch again: a number has its record by now"
"""What Postgres calls no integer, and logs."""
_INSERT = f"INSERT INTO port_record AS p ({', '.join(_FIELDS)}) {selecting(port_record, _FIELDS)} ORDER BY 1"
# Where one is there all the same the transaction has to end, and in our words: Postgres would log the number.
_ADD_NEW = text(f"""
    WITH added AS ({_INSERT} ON CONFLICT (msisdn) DO NOTHING RETURNING 1)
    SELECT CAST(CASE WHEN count(*) < :records THEN '{STORED_SINCE}' ELSE '0' END AS integer) FROM added
""")  # noqa: S608 - the columns are ours
_PUT = text(f"""
    {_INSERT}
    ON CONFLICT (msisdn) DO UPDATE SET
        status = excluded.status, range_holder = excluded.range_holder,
        current_operator = excluded.current_operator, area = excluded.area,
        observed_at = excluded.observed_at, changed_at = excluded.changed_at, source = excluded.source,
        answered_at = excluded.answered_at
    WHERE p.observed_at < excluded.observed_at
""")

_ADD_CHANGES = text(f"""
    INSERT INTO port_change ({", ".join(_CHANGE_FIELDS)}) {selecting(port_change, _CHANGE_FIELDS)} ORDER BY 1
    ON CONFLICT (msisdn, observed_before) DO NOTHING
""")

_CHANGES_OF_BATCH = text("""
    SELECT msisdn, donor, recipient, observed_after, observed_before, doubtful, batch_id, event_id
    FROM port_change WHERE batch_id = CAST(:batch_id AS uuid) ORDER BY msisdn
""")

_CHANGES_OF_NUMBER = text("""
    SELECT msisdn, donor, recipient, observed_after, observed_before, doubtful, batch_id, event_id
    FROM port_change WHERE msisdn = :msisdn AND observed_before <= :until
    ORDER BY observed_before DESC LIMIT :most
""")


def read(connection: Connection, msisdns: Iterable[str]) -> dict[str, PortRecord]:
    """Return the records of these numbers, by number; a number without one is absent."""
    return statements.run(connection, reading(msisdns))


def reading(msisdns: Iterable[str]) -> Statement[dict[str, PortRecord]]:
    """The statement of :func:`read`."""
    return Statement(_READ, {"msisdns": array(msisdns)}, _by_msisdn)


def locking(msisdns: Iterable[str]) -> Statement[dict[str, PortRecord]]:
    """Like :func:`reading`, and no other transaction changes them before this one ends."""
    return Statement(_LOCK, {"msisdns": array(msisdns)}, _by_msisdn)


def putting(records: Sequence[PortRecord]) -> Statement[None]:
    """Store one or more records; one that is not later than what is stored changes nothing."""
    return Statement(_PUT, _values(records), statements.nothing)


def adding_new(records: Sequence[PortRecord]) -> Statement[None]:
    """Like :func:`putting`, for numbers that have no record, so far as is known.

    Where one has, none is stored: Postgres raises ``InvalidTextRepresentation`` of :data:`STORED_SINCE`.
    """
    return Statement(_ADD_NEW, _values(records) | {"records": len(records)}, statements.nothing)


def adding_changes(changes: Sequence[PortChange]) -> Statement[None]:
    """Add one or more observed changes; the same observation again adds nothing."""
    return Statement(
        _ADD_CHANGES, columns(map(astuple, changes), _CHANGE_FIELDS, key="msisdn"), statements.nothing
    )


def changes_of_batch(connection: Connection, batch_id: str) -> list[PortChange]:
    """Return the changes a batch observed, in key order."""
    return _changes(connection.execute(_CHANGES_OF_BATCH, {"batch_id": batch_id}))


def changes_of_number(connection: Connection, msisdn: str, *, until: datetime, most: int) -> list[PortChange]:
    """Return a number's newest changes that were observed by ``until``, oldest first."""
    values = {"msisdn": int(msisdn), "until": until, "most": most}
    return _changes(connection.execute(_CHANGES_OF_NUMBER, values))[::-1]


def _values(records: Sequence[PortRecord]) -> dict[str, Any]:
    return columns(map(astuple, records), _FIELDS, key="msisdn")


def _changes(rows: Iterable[Any]) -> list[PortChange]:
    return [
        PortChange(str(msisdn), donor, recipient, after, before, doubtful, str(batch), str(event))
        for msisdn, donor, recipient, after, before, doubtful, batch, event in rows
    ]


def _by_msisdn(rows: Iterable[Any]) -> dict[str, PortRecord]:
    return {str(msisdn): PortRecord(str(msisdn), Status(status), *rest) for msisdn, status, *rest in rows}
