"""PostgreSQL: whether it is there, ours, on time, and keeps what it confirms."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from worker.doctor.finding import Finding, clock, fail, ok, warn
from worker.portability.requests import Lane
from worker.storage import engine, migrations, server

if TYPE_CHECKING:
    from worker.config import Settings

_OLDEST = 15
_BUFFERS_AS_IT_COMES = 128 * 1024**2
_LARGE = 8
"""A database of so many times its buffers is more than they were meant for."""
_FEW_CHECKPOINTS = 10
_ENOUGH_LOG = 4 * 1024**3
_WHY = "docs/database.md says what it saves"
_NEEDED = 5
"""Connections of each process beside those of its slots; see ``bootstrap.build``."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at the database the settings name."""
    database = engine.connect(settings.database_url, connections=2)
    try:
        asked = time.time()
        facts = engine.read(database, server.facts)
        took = time.time() - asked
        yield _version(facts.version_num)
        yield clock("PostgreSQL, clock", facts.at.timestamp() - asked - took / 2)
        revision, pending = migrations.current(database), migrations.pending(database)
        yield (
            fail(
                "PostgreSQL, tables",
                "no tables yet" if revision is None else f"at revision {revision}",
                "run presend db upgrade",
            )
            if pending
            else ok("PostgreSQL, tables", f"at revision {revision}")
        )
        yield from promises(facts)
        yield from size(facts)
        yield connections(settings, facts)
    finally:
        database.dispose()


def _version(number: int) -> Finding:
    words = f"version {number // 10000}"
    if number // 10000 < _OLDEST:
        return fail("PostgreSQL", words, f"presend needs {_OLDEST} or newer")
    return ok("PostgreSQL", words)


def promises(facts: server.Facts) -> Iterator[Finding]:
    """Whether what is confirmed is kept, and tables stay small."""
    subject = "PostgreSQL, commits"
    off = [name for name in ("fsync", "full_page_writes") if facts.settings[name] == "off"]
    if off:
        yield fail(
            subject, f"{' and '.join(off)} off", f"set {off[0]} = on: a crash may cost the whole database"
        )
    elif facts.settings["synchronous_commit"] == "off":
        yield fail(
            subject,
            "synchronous_commit off",
            "set synchronous_commit = on (or local): messages are acknowledged after a commit, which a crash "
            "of Postgres would then undo",
        )
    else:
        yield ok(subject, f"synchronous_commit {facts.settings['synchronous_commit']}")
    if facts.settings["autovacuum"] == "off":
        yield warn(
            "PostgreSQL, autovacuum",
            "off",
            "set autovacuum = on: in_flight and lookup_call grow and slow down without it",
        )
    else:
        yield ok("PostgreSQL, autovacuum", "on")


def size(facts: server.Facts) -> Iterator[Finding]:
    """Whether it is set up for as much as it holds: as it comes, it is for a small database."""
    subject, buffers = "PostgreSQL, memory", facts.shared_buffers
    words = f"shared_buffers {_in_words(buffers)}, the database {_in_words(facts.database_size)}"
    if buffers <= _BUFFERS_AS_IT_COMES and facts.database_size > _LARGE * buffers:
        yield warn(subject, words, f"set shared_buffers to a quarter of its machine's memory ({_WHY})")
    else:
        yield ok(subject, words)
    subject, timed, early = "PostgreSQL, checkpoints", facts.checkpoints_timed, facts.checkpoints_requested
    words = f"{timed} in time, {early} early, max_wal_size {_in_words(facts.max_wal_size)}"
    if early > max(_FEW_CHECKPOINTS, timed) and facts.max_wal_size < _ENOUGH_LOG:
        yield warn(subject, words, f"set max_wal_size = 8GB and checkpoint_timeout = 15min ({_WHY})")
    else:
        yield ok(subject, words)


def connections(settings: Settings, facts: server.Facts) -> Finding:
    """What two lanes and a front door may open at most, beside what there is."""
    lanes = {lane: 2 * max(settings.slots(each) for each in Lane) + _NEEDED + 4 for lane in Lane}
    needed = sum(lanes.values())
    free = facts.max_connections - facts.reserved_connections
    words = f"{facts.connections} of {free} in use; a process may open {needed // len(lanes)}"
    if free < needed:
        return warn(
            "PostgreSQL, connections",
            words,
            f"set max_connections = {facts.reserved_connections + needed} or more for two lanes and "
            "presend serve, so much again for each further worker, or lower PRESEND_<LANE>_SLOTS",
        )
    return ok("PostgreSQL, connections", words)


def _in_words(size: int) -> str:
    return f"{size / 1024**3:.1f} GB" if size >= 1024**3 else f"{size / 1024**2:.0f} MB"
