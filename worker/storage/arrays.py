"""Arrays for Postgres in its own text form: psycopg's way through a list costs twenty times as much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import astuple


def array(values: Iterable[object]) -> str:
    """Return the literal of a one-dimensional array of texts, numbers, times or ids; None becomes NULL.

    The statement casts it: ``CAST(:name AS text[])``.
    """
    elements = list(values)
    return _plain_texts(elements) or "{" + ",".join(map(_Elements().__getitem__, elements)) + "}"


def columns(rows: Sequence[msgspec.Struct]) -> dict[str, str]:
    """Return the arrays of the rows' fields by their names: the parameters of a statement."""
    fields = rows[0].__struct_fields__
    return dict(zip(fields, map(array, zip(*map(astuple, rows), strict=True)), strict=True))


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
