"""The Postgres server itself: its clock, and the settings that presend's promises stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "autovacuum")
_FACTS = text("""
    SELECT clock_timestamp(), CAST(current_setting('server_version_num') AS integer),
           CAST(current_setting('max_connections') AS integer),
           CAST(current_setting('superuser_reserved_connections') AS integer),
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
""")
_SETTING = text("SELECT name, setting FROM pg_settings WHERE name = ANY(CAST(:names AS text[]))")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself, to this database's sessions."""

    at: datetime
    version_num: int
    max_connections: int
    # of these, kept for superusers
    reserved_connections: int
    # open now, ours and others'
    connections: int
    # on, off and the like, by name
    settings: Mapping[str, str]


def facts(connection: Connection) -> Facts:
    """Ask the server."""
    row = connection.execute(_FACTS).one()
    settings = {row.name: row.setting for row in connection.execute(_SETTING, {"names": list(_SETTINGS)})}
    return Facts(row[0], row[1], row[2], row[3], row[4], settings)
