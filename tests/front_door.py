"""presend's front door in this process, on a thread of its own, and accounts to call it with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from sqlalchemy import Engine, text

from worker import bootstrap, config
from worker.carrier.protocol import FeeType
from worker.sandbox.provider import DEFAULT_APIKEY
from worker.serve import running
from worker.storage import accounts, engine
from worker.upkeep import Upkeep

CERTIFICATE = Path(__file__).parent / "localhost.pem"
_UNREACHABLE_BROKER = "redis://127.0.0.1:1/0"


@dataclass
class Front:
    """A front door that listens."""

    url: str
    secure_url: str | None
    database: Engine

    def account(self, name: str = "shop", **options: Any) -> str:
        """Open an account; return its key."""
        options = {"fee_type": FeeType.PREPAID, "balance": 1000, "by": "mei"} | options
        _, key = engine.transact(self.database, lambda to: accounts.create(to, name, **options))
        return key

    def stands(self, name: str = "shop") -> accounts.Account:
        return next(one for one in engine.read(self.database, accounts.every) if one.name == name)

    def charged(self, name: str = "shop") -> int:
        """What its calls cost it so far."""
        moved = engine.transact(self.database, lambda to: list(accounts.statement(to, name)))
        return -sum(one.amount for one in moved if one.kind in {"charge", "refund"})

    def rows(self, query: str) -> list[Any]:
        with self.database.connect() as connection:
            return list(connection.execute(text(query)))


@contextmanager
def front_door(
    database_url: str, provider_url: str, *, certificate: Path | None = None, **settings: Any
) -> Iterator[Front]:
    """Serve on free ports until the block ends; https too where there is a certificate. No broker answers."""
    presend = bootstrap.build(
        config.load(
            broker_url=_UNREACHABLE_BROKER,
            database_url=database_url,
            provider_url=provider_url,
            provider_apikey=DEFAULT_APIKEY,
            **settings,
        )
    )
    upkeep = Upkeep(
        database=presend.database,
        store=presend.store,
        carrier=presend.carrier,
        publisher=presend.publisher,
        intake={},
        broker_url=None,
        account=presend.account,
    )
    stop, ready, urls = Event(), Event(), list[str]()

    def on_ready(found: list[str]) -> None:
        urls.extend(found)
        ready.set()

    tls = None if certificate is None else running.Tls(0, certificate, certificate)
    options = {"port": 0, "tls": tls, "stop": stop, "on_ready": on_ready}
    thread = Thread(target=running.run, args=(presend, upkeep), kwargs=options, name="front-door")
    thread.start()
    try:
        assert ready.wait(20)
        yield Front(urls[0], urls[1] if tls else None, presend.database)
    finally:
        stop.set()
        thread.join(30)
        presend.close()


def ask_at_once(url: str, bodies: Sequence[dict[str, str]]) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """POST each body as a form to /carrier, all at the same time; each answer and its headers."""
    port = int(url.rpartition(":")[2])

    async def ask(body: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        content = "&".join(f"{name}={value}" for name, value in body.items())
        writer.write(
            "POST /carrier HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(content)}\r\n\r\n{content}".encode()
        )
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        headers = dict(line.split(": ", 1) for line in head.decode().lower().splitlines()[1:])
        return json.loads(answer), headers

    async def ask_all() -> list[tuple[dict[str, Any], dict[str, str]]]:
        return await asyncio.gather(*map(ask, bodies))

    return asyncio.run(ask_all())
