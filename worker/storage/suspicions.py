"""Suspicions: which items were in the running batch each time a process died, in Postgres.

Written before a batch of suspects begins and taken back when it has ended, so what stays was not lived
through. A row is left by an item that was parked; it is dropped a day after its last batch.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from threading import Event

from sqlalchemy import Connection, Engine, text

from worker.storage import engine
from worker.suspicion import Suspicion

_READ = text("""
    SELECT CAST(item_id AS text), deaths, first_at, last_at FROM suspicion
    WHERE item_id = ANY(CAST(:ids AS uuid[]))
""")

_PUT = text("""
    INSERT INTO suspicion (item_id, deaths, first_at, last_at)
    SELECT * FROM unnest(CAST(:id AS uuid[]), CAST(:deaths AS integer[]), CAST(:first_at AS timestamptz[]),
                         CAST(:last_at AS timestamptz[])) AS n(item_id) ORDER BY 1
    ON CONFLICT (item_id) DO UPDATE
        SET deaths = excluded.deaths, first_at = excluded.first_at, last_at = excluded.last_at
""")

_DROP = text("""
    DELETE FROM suspicion WHERE item_id IN (
        SELECT item_id FROM suspicion
        WHERE item_id = ANY(CAST(:ids AS uuid[])) OR last_at < now() - interval '1 day'
        ORDER BY item_id FOR UPDATE
    )
""")


class Suspicions:
    """What is held against items, by their ids. Every method is safe to call again."""

    def __init__(self, database: Engine, *, giving_up: Event) -> None:
        self._database = database
        self._giving_up = giving_up

    def read(self, ids: Collection[str]) -> dict[str, Suspicion]:
        """Return what is noted of these items, once Postgres says it; the others are absent."""
        return engine.transact_until_done(self._database, partial(_read, ids=ids), giving_up=self._giving_up)

    def begin(self, suspicions: Collection[Suspicion]) -> None:
        """Note what will be held against a batch's items if its process dies from now on."""
        engine.read(self._database, partial(_put, suspicions=suspicions))

    def end(self, suspicions: Collection[Suspicion], *, cleared: Collection[str]) -> None:
        """The process lived: hold against items what was held before, and nothing against ``cleared``."""

        def take_back(to: Connection) -> None:
            _put(to, suspicions)
            to.execute(_DROP, {"ids": list(cleared)})

        engine.transact(self._database, take_back)


def _read(connection: Connection, *, ids: Collection[str]) -> dict[str, Suspicion]:
    rows = connection.execute(_READ, {"ids": list(ids)})
    return {row[0]: Suspicion(*row) for row in rows}


def _put(connection: Connection, suspicions: Collection[Suspicion]) -> None:
    once = {each.item_id: each for each in suspicions}.values()  # a message may be here twice
    if once:
        connection.execute(
            _PUT,
            {
                "id": [each.item_id for each in once],
                "deaths": [each.deaths for each in once],
                "first_at": [each.first_at for each in once],
                "last_at": [each.last_at for each in once],
            },
        )
