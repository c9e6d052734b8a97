"""The console in this process: operators, and a client of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from tests.web_client import WebClient
from worker import bootstrap, config
from worker.console import console as building
from worker.console import passwords
from worker.sandbox.provider import DEFAULT_APIKEY
from worker.storage import engine, operators
from worker.storage.operators import Role

HOST = "http://127.0.0.1:8600"
PASSWORD = "correct horse battery staple"
_HASH = passwords.hashed(PASSWORD)
_UNREACHABLE_BROKER = "redis://127.0.0.1:1/0"


@dataclass
class Watched:
    """A console whose watch does not look, unless told to."""

    its: building.Console
    site: building.Site
    app: Any

    @property
    def database(self) -> Engine:
        return self.its.observing.database

    def add(self, name: str, role: Role) -> None:
        engine.transact(
            self.database, lambda to: operators.add(to, name, password_hash=_HASH, role=role, by="test")
        )

    def client(self, name: str | None = None, *, base_url: str = HOST) -> WebClient:
        """A client, logged in where a name is given."""
        made = WebClient(self.app, base_url)
        if name is not None:
            answer = made.submit("/log-in", page="/log-in", name=name, password=PASSWORD)
            assert answer.status_code == 303, answer.text
        return made

    def rows(self, query: str) -> list[Any]:
        with self.database.connect() as connection:
            return list(connection.execute(text(query)))


@contextmanager
def operators_console(
    database_url: str,
    *,
    broker_url: str = _UNREACHABLE_BROKER,
    site: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Watched]:
    """A console over a database, with the operators mei (act) and otto (view)."""
    observing = bootstrap.observing(
        config.load(
            database_url=database_url, broker_url=broker_url, provider_apikey=DEFAULT_APIKEY, **settings
        )
    )
    its = building.console(observing)
    its_site = building.site(its, **(site or {}))
    made = Watched(its, its_site, building.app(its, its_site))
    made.add("mei", Role.ACT)
    made.add("otto", Role.VIEW)
    try:
        yield made
    finally:
        observing.close()
