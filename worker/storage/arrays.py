"""Arrays for Postgres in its own text form: psycopg's way through a list costs twenty times as much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

_ALIKE = "_alike"
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def array(values: Iterable[object]) -> str:
    """Return the literal of a one-dimensional array of texts, numbers, times or ids; None becomes NULL.

    The statement casts it: ``CAST(:name AS text[])``.
    """
    elements = list(values)
    return _plain_texts(elements) or "{" + ",".join(map(_Elements().__getitem__, elements)) + "}"


def selecting(table: Table, fields: Sequence[str]) -> str:
    """Return the SELECT that makes rows of a table's fields from the parameters of :func:`columns`."""
    types = {name: table.c[name].type.compile(_DIALECT) for name in fields}
    values = ", ".join(f"coalesce(n.{name}, CAST(:{name}{_ALIKE} AS {kind}))" for name, kind in types.items())
    arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in types.items())
    return f"SELECT {values} FROM unnest({arrays}) AS n({', '.join(fields)})"  # noqa: S608 - the fields are ours


def columns(rows: Iterable[Sequence[object]], fields: Sequence[str], *, key: str) -> dict[str, str | None]:
    """Return rows as parameters of :func:`selecting`.

    A field is an array or, where it is alike in all rows, one value: so are most of a batch's, and reading
    them took Postgres a quarter of what it takes to store a row. ``key`` is an array always.
    """
    parameters: dict[str, str | None] = {}
    for name, values in zip(fields, list(zip(*rows, strict=True)) or [()] * len(fields), strict=True):
        first = values[0] if values else None
        alike = name != key and values[-1:] == values[:1] and values.count(first) == len(values)
        parameters[name] = "{}" if alike else array(values)
        parameters[name + _ALIKE] = str(first) if alike and first is not None else None
    return parameters


def _plain_texts(elements: Sequence[object]) -> str | None:
    """The literal of texts without quotes and backslashes, as most columns are; None for any other."""
    try:
        joined = '","'.join(elements)  # type: ignore[arg-type]  # else TypeError
    except TypeError:
        return None
    if "\\" in joined or joined.count('"') != 2 * (len(elements) - 1):
        return None
    return f'{{"{joined}"}}'


class _Elements(dict[object, str]):
    """Each value as an element, written once: most columns of a batch hold few different ones."""

    def __missing__(self, value: object) -> str:
        element = self[value] = "NULL" if value is None else _quoted(str(value))
        return element


def _quoted(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
