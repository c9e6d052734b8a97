"""What must be there before a worker starts: reached once, so that what is missing is said once, plainly."""

from __future__ import annotations

from kombu import Connection

from worker.errors import PresendError
from worker.storage import migrations
from worker.storage.engine import connect

_CONNECT_SECONDS = 5


def require_database(database_url: str) -> None:
    """Raise unless Postgres answers and has this release's tables."""
    engine = connect(database_url, connections=1)
    try:
        if migrations.pending(engine):
            raise PresendError("the database lacks tables of this release: run presend db upgrade")
    finally:
        engine.dispose()


def require_broker(broker_url: str) -> None:
    """Raise unless the broker takes a connection."""
    with Connection(broker_url, connect_timeout=_CONNECT_SECONDS) as connection:
        connection.ensure_connection(max_retries=1, timeout=_CONNECT_SECONDS)
