"""The site: a held folder, and the engines started in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from typing import Any

from worker.embedded.account import Account
from worker.embedded.processes import psutil
from worker.embedded.programs import Programs


@dataclass(frozen=True)
class Site:
    """A folder, who runs what there, and what was started."""

    folder: Path
    account: Account
    programs: Programs
    # whether the engines keep what they acknowledged through a crash
    durable: bool
    # whether a later owner finds the data
    kept: bool
    # every process started, the ended ones too: psutil.Popen, which signals no recycled process id
    started: list[Any] = field(default_factory=list)

    def start(self, command: Sequence[str | Path], *, cwd: Path, log: Path) -> Any:
        """Start an engine in its own session, where a terminal's Ctrl-C does not reach it."""
        account = self.account
        switch: dict[str, Any] = {}
        if os.geteuid() == 0 and not account.prefix:
            switch = {"user": account.uid, "group": account.gid, "extra_groups": []}
        with account.open(log, "wb") as output:
            engine = psutil().Popen(
                [*account.prefix, *command],
                cwd=cwd,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},  # the caller's PG* and LC_* stay out
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                start_new_session=True,
                umask=0o077,
                **switch,
            )
        self.started.append(engine)
        return engine
