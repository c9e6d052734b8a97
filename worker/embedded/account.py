"""The account: whom the engines run as, what is theirs, and what they may read."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from worker.embedded.programs import Programs
from worker.errors import SettingsError

if sys.platform != "win32":
    import pwd


@dataclass(frozen=True)
class Account:
    """Ourselves; but for root, whom PostgreSQL refuses, the folder's owner or else `nobody`."""

    uid: int
    gid: int
    # what becomes that user and keeps the right to look into closed folders; empty where none is needed
    prefix: tuple[str, ...] = ()

    def open(self, path: Path, mode: str) -> IO[Any]:
        """Open a private file of this account's, never through a link: root must not be led astray."""

        def private(name: str, flags: int) -> int:
            file = os.open(name, flags | os.O_NOFOLLOW, 0o600)
            if os.geteuid() == 0:
                os.fchown(file, self.uid, self.gid)
            return file

        return open(path, mode, opener=private)  # Path.open takes no opener

    def make_folder(self, path: Path) -> Path:
        """Make a private folder of this account's own."""
        path.mkdir(mode=0o700, exist_ok=True)
        return self.own(path)

    def own(self, path: Path) -> Path:
        """Make the path this account's, where we are root; else it is already."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
        return path


def prepare(folder: Path, programs: Programs) -> tuple[Path, Account]:
    """The folder's real path, made if missing, and the account for it; raises SettingsError without one."""
    folder = folder.expanduser().resolve()
    try:
        account = _account_of(folder)
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            if account.uid == folder.parent.stat().st_uid:
                account.own(folder)
            elif os.geteuid() == 0:
                folder.chmod(0o711)
        return folder, _seeing(account, folder, programs)
    except OSError as error:
        raise SettingsError(f"{folder} cannot hold the engines ({error}): choose another folder") from error


def _account_of(folder: Path) -> Account:
    """The account that owns the folder, or the one it is to be made in."""
    owner = next(place.stat() for place in (folder, *folder.parents) if place.exists())
    if os.geteuid() != 0:
        if folder.exists() and owner.st_uid != os.geteuid():
            raise SettingsError(f"{folder} belongs to {_user_name(owner.st_uid)}: choose another folder")
        uid, gid = os.geteuid(), os.getegid()
    elif owner.st_uid:
        uid, gid = owner.st_uid, owner.st_gid
    else:
        nobody = pwd.getpwnam("nobody")
        uid, gid = nobody.pw_uid, nobody.pw_gid
    if _user_name(uid).isdecimal():
        raise SettingsError(f"user {uid} has no name in /etc/passwd, and PostgreSQL's initdb needs one")
    return Account(uid, gid)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _seeing(account: Account, folder: Path, programs: Programs) -> Account:
    """The account, able to reach its folder and the wheels though they lie in a closed home."""
    closed = [path for path in (folder, programs.postgres, programs.valkey) if not _enterable(path, account)]
    if os.geteuid() != 0 or not closed:
        return account
    setpriv, right = shutil.which("setpriv"), _right_to_look()
    if setpriv is None or right is None:
        raise SettingsError(
            f"root's engines run as {_user_name(account.uid)}, who cannot enter {closed[0]}: "
            "choose a folder outside private homes, or do not run as root"
        )
    who = (f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups")
    return replace(account, prefix=(setpriv, *who, f"--inh-caps=+{right}", f"--ambient-caps=+{right}", "--"))


def _right_to_look() -> str | None:
    """The narrowest capability of ours that opens closed folders (capabilities(7)).

    Containers often hold back dac_read_search, the narrower right, but grant dac_override.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    held = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    rights = ((2, "dac_read_search"), (1, "dac_override"))
    return next((name for bit, name in rights if held >> bit & 1), None)


def _enterable(path: Path, account: Account) -> bool:
    """Whether the account may enter (or run) `path` and every folder on the way."""
    for place in (path, *path.parents):
        status = place.stat()
        owner, group = status.st_uid == account.uid, status.st_gid == account.gid
        if not status.st_mode & (0o100 if owner else 0o010 if group else 0o001):
            return False
    return True
