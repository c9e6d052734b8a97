"""Where the demo keeps what it needs while it runs: a private folder, and its processes' log."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from worker.errors import SettingsError

if sys.platform != "win32":
    import fcntl

_LAST_LINES = 15


@dataclass(frozen=True, slots=True)
class Places:
    """One demo's folder."""

    root: Path

    @property
    def engines(self) -> Path:
        """PostgreSQL's and Valkey's."""
        return self.root / "engines"

    @property
    def log(self) -> Path:
        """What sandbox and workers have to say."""
        return self.root / "processes.log"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the folder's one demo, with an empty log; the kernel lets go of it however the demo ends."""
        with self._private("demo.pid", os.O_RDWR) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = file.read().strip() or "starting"
                raise SettingsError(
                    f"a demo is running already (process {pid}) in {self.root}: end it, "
                    "or give this one a place of its own with --folder"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            with self.open_log() as log:
                log.truncate(0)
            yield

    def open_log(self) -> IO[str]:
        """Open the log for a process to write at its end."""
        return self._private(self.log.name, os.O_RDWR | os.O_APPEND)

    def last_words(self) -> str:
        """The end of the log, each line cut to be read."""
        with self.open_log() as log:
            lines = log.read().splitlines()
        return "\n".join(f"  {line[:200]}" for line in lines[-_LAST_LINES:])

    def _private(self, name: str, flags: int) -> IO[str]:
        """Open a file for this user alone, never through a link."""
        number = os.open(self.root / name, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        return os.fdopen(number, "r+", encoding="utf-8", errors="replace")


def prepare(folder: Path | None) -> Places:
    """Make the folder named, or else the first of the usual ones that can be made."""
    if folder is not None:
        return Places(_made(folder.expanduser().absolute()))
    refused = []
    for candidate in _usual():
        try:
            return Places(_made(candidate))
        except (OSError, SettingsError) as exc:
            refused.append(str(exc))
    raise SettingsError(f"no folder for the demo's data ({'; '.join(refused)}): name one with --folder")


def _usual() -> Iterator[Path]:
    """Root's engines run as nobody, who must be able to enter: not /root, which is closed."""
    if os.geteuid() == 0:
        yield Path("/var/cache/presend/demo")
    else:
        cache, home = os.environ.get("XDG_CACHE_HOME", ""), Path(os.path.expanduser("~"))  # noqa: PTH111 - never raises
        yield (Path(cache) if Path(cache).is_absolute() else home / ".cache") / "presend" / "demo"
    yield Path(tempfile.gettempdir()) / f"presend-demo-{os.geteuid()}"


def _made(folder: Path) -> Path:
    """The folder, ours alone; never one that another user laid out for us."""
    folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise SettingsError(f"{folder} is not a folder of this user's")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"{folder} cannot be written")
    return folder
