"""The Postgres server itself: its clock, the settings that presend's promises stand on, and its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "autovacuum")
_FACTS = text("""
    SELECT clock_timestamp() AS at, CAST(current_setting('server_version_num') AS integer) AS version_num,
           CAST(current_setting('max_connections') AS integer) AS max_connections,
           CAST(current_setting('superuser_reserved_connections') AS integer) AS reserved_connections,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
           pg_size_bytes(current_setting('shared_buffers')) AS shared_buffers,
           pg_database_size(current_database()) AS database_size,
           pg_size_bytes(current_setting('max_wal_size')) AS max_wal_size
""")
_CHECKPOINTS = text("""
    SELECT checkpoints_timed, checkpoints_req AS checkpoints_requested FROM pg_stat_bgwriter
""")
_CHECKPOINTS_SINCE_17 = text("""
    SELECT num_timed AS checkpoints_timed, num_requested AS checkpoints_requested FROM pg_stat_checkpointer
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
    # bytes: what it keeps of tables in memory of its own, and what this database has
    shared_buffers: int
    database_size: int
    # bytes of log after which it makes a checkpoint before its time
    max_wal_size: int
    # since its statistics begin: those whose time had come, and those before it, mostly for a full log
    checkpoints_timed: int
    checkpoints_requested: int
    # on, off and the like, by name
    settings: Mapping[str, str]


def facts(connection: Connection) -> Facts:
    """Ask the server."""
    found = connection.execute(_FACTS).mappings().one()
    since_17 = found["version_num"] >= 170000
    checkpoints = connection.execute(_CHECKPOINTS_SINCE_17 if since_17 else _CHECKPOINTS).mappings().one()
    settings = {row.name: row.setting for row in connection.execute(_SETTING, {"names": list(_SETTINGS)})}
    return Facts(**found, **checkpoints, settings=settings)
