"""Erasure of one number from every table: what carries it goes or is emptied, what is added up stays.

A decided request keeps its key, decision and times, so that its sums stand and its key, coming again,
buys nothing; the number and all that was asked and found about it go. The numbers of a call become nulls
in its lists, whose lengths are sums too. Text that mentions the number is emptied of it, in every table
there is; :func:`left` then looks through all columns, so that a table nobody thought of here is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSON

from worker.portability.mentions import Mentions
from worker.storage import calls, operator_actions
from worker.storage.retention import delete_summed

_AT_ONCE = 500
_ERASED = "erased"

_IN_USE = text("""
    SELECT (SELECT count(*) FROM in_flight WHERE msisdn = :msisdn),
           (SELECT count(*) FROM lookup_batch b WHERE b.emitted_at IS NULL AND (
               EXISTS (SELECT FROM check_request r WHERE r.batch_id = b.id AND r.msisdn = :msisdn)
               OR EXISTS (SELECT FROM port_change c WHERE c.batch_id = b.id AND c.msisdn = :msisdn)))
""")

_DELETE_RECORD = text("DELETE FROM port_record WHERE msisdn = :msisdn")
_EMPTY_REQUESTS = text("""
    UPDATE check_request SET msisdn = NULL, asked_operator = NULL, failure_code = NULL, status = NULL,
        range_holder = NULL, current_operator = NULL, target_operator = NULL, area = NULL, observed_at = NULL
    WHERE msisdn = :msisdn
""")
# a key that spells the number is given up: it cannot come again and be known by another name
_RENAME_KEYS = text("""
    UPDATE check_request SET event_id = gen_random_uuid(),
        source = CASE WHEN source ~ :pattern THEN 'erased-' || gen_random_uuid() ELSE source END,
        reference = CASE WHEN reference ~ :pattern THEN 'erased-' || gen_random_uuid() ELSE reference END
    WHERE source ~ :pattern OR reference ~ :pattern
""")
_EMPTY_CALLS = text("""
    UPDATE lookup_call SET unanswered = array_replace(unanswered, CAST(:msisdn AS bigint), NULL),
                           overtaken = array_replace(overtaken, CAST(:msisdn AS bigint), NULL)
    WHERE :msisdn = ANY(unanswered) OR :msisdn = ANY(overtaken)
""")
# in a caller's list the place stays, with nothing in it
_EMPTY_PARTS = [
    text(f"""
        UPDATE job_part SET {
        ", ".join(f"{each}[array_position(msisdns, CAST(:msisdn AS bigint))] = NULL" for each in columns)
    } WHERE :msisdn = ANY(msisdns) AND statuses IS {null} NULL
    """)  # noqa: S608 - ours
    for null, columns in (
        ("", ("msisdns",)),
        ("NOT", ("statuses", "range_holders", "current_operators", "areas", "observed_at", "msisdns")),
    )
]
_LETTERS = text("SELECT id, payload, concat_ws(' ', task, reason, queue) FROM dead_letter")
_SHORTEN = text("UPDATE dead_letter SET payload = :payload WHERE id = CAST(:id AS uuid)").bindparams(
    bindparam("payload", type_=JSON)
)
_COLUMNS = text("""
    SELECT t.table_name, array_remove(array_agg(c.column_name::text ORDER BY c.column_name)
               FILTER (WHERE c.data_type IN ('text', 'character varying')), NULL)
    FROM information_schema.tables t JOIN information_schema.columns c USING (table_schema, table_name)
    WHERE table_schema = current_schema() AND t.table_type = 'BASE TABLE' GROUP BY 1 ORDER BY 1
""")


class InUse(NamedTuple):
    """What is still at work with a number."""

    # calls that have it in flight
    calls: int
    # batches whose events about it are not confirmed
    unsent: int


def in_use(connection: Connection, mentions: Mentions) -> InUse:
    """Return what is still at work with the number; calls whose time is up are given up first."""
    calls.give_up(connection, gone=())
    return InUse(*connection.execute(_IN_USE, {"msisdn": int(mentions.msisdn)}).one())


def erase(connection: Connection, mentions: Mentions, *, who: str, reason: str) -> dict[str, int]:
    """Erase the number, and write down that one was; return rows by table, tables without any left out."""
    number, pattern = {"msisdn": int(mentions.msisdn)}, {"pattern": mentions.pattern}
    connection.execute(text("SET LOCAL statement_timeout = 0"))  # texts have no index: all are read
    rows: Counter[str] = Counter()
    rows["port_record"] = connection.execute(_DELETE_RECORD, number).rowcount
    rows["port_change"] = delete_summed(connection, "port_change", "r.msisdn = :msisdn", number)
    rows["check_request"] = connection.execute(_EMPTY_REQUESTS, number).rowcount
    rows["check_request, key"] = connection.execute(_RENAME_KEYS, pattern).rowcount
    rows["lookup_call"] = connection.execute(_EMPTY_CALLS, number).rowcount
    rows["job_part"] = sum(connection.execute(each, number).rowcount for each in _EMPTY_PARTS)
    rows["dead_letter"] = _erase_letters(connection, mentions)
    for table, columns in _tables(connection):
        if columns:
            rows[table] += connection.execute(_empty_texts(table, columns), pattern).rowcount
    operator_actions.add(connection, who=who, action="erase", subject="a mobile number", reason=reason)
    return {place: number for place, number in rows.items() if number}


def left(connection: Connection, mentions: Mentions) -> dict[str, int]:
    """Look through every column of every table; return rows by table in which the number still is."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    found = {
        table: connection.execute(
            text(f"SELECT count(*) FROM {_quoted(table)} t WHERE strpos(t::text, :msisdn) > 0"),  # noqa: S608
            {"msisdn": mentions.msisdn},
        ).scalar_one()
        for table, _ in _tables(connection)
    }
    return {table: number for table, number in found.items() if number}


def _erase_letters(connection: Connection, mentions: Mentions) -> int:
    """Delete letters that mention the number; of a message with many items only those items go."""
    deleted, shortened = [], []
    for letter_id, payload, words in connection.execute(_LETTERS).yield_per(_AT_ONCE):
        if not (mentions.in_json(payload) or mentions.in_text(words)):
            continue
        kept = _without(payload, mentions)
        if kept is None or mentions.in_text(words):
            deleted.append(str(letter_id))
        else:
            shortened.append({"id": str(letter_id), "payload": kept})
    if shortened:
        connection.execute(_SHORTEN, shortened)
    which = "r.id = ANY(CAST(:ids AS uuid[]))"
    return len(shortened) + delete_summed(connection, "dead_letter", which, {"ids": deleted})


def _without(payload: Any, mentions: Mentions) -> Any:
    """A message's arguments without the items that mention the number; None where nothing may stay."""
    items = payload.get("items") if isinstance(payload, dict) else None
    if not isinstance(items, list):
        return None
    kept = payload | {"items": [item for item in items if not mentions.in_json(item)]}
    return None if not kept["items"] or mentions.in_json(kept) else kept


def _tables(connection: Connection) -> Iterator[tuple[str, list[str]]]:
    """Every table of presend's schema, with its columns of text."""
    yield from [(table, columns or []) for table, columns in connection.execute(_COLUMNS)]


def _empty_texts(table: str, columns: list[str]) -> Any:
    assignments = ", ".join(
        f"{_quoted(each)} = regexp_replace({_quoted(each)}, :pattern, '{_ERASED}', 'g')" for each in columns
    )
    together = (
        f"concat_ws(repeat(' ', 9), {', '.join(map(_quoted, columns))})"  # too far apart for one number
    )
    return text(f"UPDATE {_quoted(table)} SET {assignments} WHERE {together} ~ :pattern")  # noqa: S608


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
