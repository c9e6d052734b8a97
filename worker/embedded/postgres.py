"""PostgreSQL: its cluster, its start, its socket's folder and its databases."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from worker.embedded.account import Account
from worker.embedded.processes import START_SECONDS, last_lines, wait_until
from worker.embedded.programs import POSTGRES_MAJOR
from worker.embedded.site import Site
from worker.errors import SettingsError

_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES = 103  # macOS; Linux takes 107

_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",  # else PGPORT of the caller's shell
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_FORGETFUL = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


def start(site: Site) -> str:
    """Start PostgreSQL; returns the URL of its database `presend`."""
    data, log = site.folder / "postgres", site.folder / "postgres.log"
    if not data.exists():
        _initialise(site, data)
    elif (data / "PG_VERSION").read_text().strip() != POSTGRES_MAJOR:
        raise SettingsError(
            f"{data} is not of PostgreSQL {POSTGRES_MAJOR}: delete it, or choose another folder"
        )
    # Stale: nobody runs here. With a recycled process id in it PostgreSQL would refuse to start.
    (data / "postmaster.pid").unlink(missing_ok=True)
    sockets = _socket_folder(site.folder, site.account)
    settings = _SETTINGS | ({} if site.durable else _FORGETFUL) | {"unix_socket_directories": str(sockets)}
    options = [f"--{name}={value}" for name, value in settings.items()]
    server = site.start([site.programs.postgres, "-D", data, *options], cwd=site.folder, log=log)
    wait_until(partial(_is_ready, data, server.pid), server, log)
    url = f"postgresql://postgres@/presend?host={sockets}&port=5432"
    _create_if_missing(url)
    return url


def _initialise(site: Site, data: Path) -> None:
    """Make the database cluster, under another name until it is whole."""
    unfinished, log = data.with_name("postgres.new"), data.with_name("initdb.log")
    shutil.rmtree(unfinished, ignore_errors=True)
    site.account.make_folder(unfinished)
    command = (site.programs.initdb, "-D", unfinished, "--username=postgres", "--auth=trust")
    # the builtin provider sorts alike everywhere; the system may lack the locale C.UTF-8
    options = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    options += [] if site.durable and site.kept else ["--no-sync"]
    initdb = site.start([*command, *options], cwd=data.parent, log=log)
    if initdb.wait(timeout=START_SECONDS):
        raise SettingsError(f"initdb failed: {last_lines(log)}")
    unfinished.rename(data)


def _is_ready(data: Path, pid: int) -> bool:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return lines[:1] == [str(pid)] and lines[-1].strip() == "ready"


# Its databases


def create_database(url: str, name: str, template: str | None = None) -> str:
    """Create a database beside the URL's, a copy of `template` if one is named; returns its URL."""
    statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template is not None:
        statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
    with psycopg.connect(_database(url, "postgres"), autocommit=True) as connection:
        connection.execute(statement)
    return _database(url, name)


def _create_if_missing(url: str) -> None:
    with psycopg.connect(_database(url, "postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_database WHERE datname = 'presend'").fetchall():
            connection.execute("CREATE DATABASE presend")


def _database(url: str, name: str) -> str:
    """The same server's URL with another database."""
    server, _, rest = url.partition("@/")
    return f"{server}@/{quote(name, safe='')}?{rest.partition('?')[2]}"


# Its socket's folder


def _socket_folder(folder: Path, account: Account) -> Path:
    """`folder`/run, or a link there to a short private folder where that is too long or not plain.

    Not plain: libpq takes a comma for the start of a second host, and no quoting helps.
    """
    drop_socket_folder(folder)
    run = folder / "run"
    plain = quote(str(run)) == str(run)
    if plain and len(str(run / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES:
        return account.make_folder(run)
    short = account.own(Path(tempfile.mkdtemp(prefix="presend-", dir="/tmp")))  # short wherever TMPDIR is
    run.symlink_to(short)
    return short


def drop_socket_folder(folder: Path) -> None:
    """With what a killed PostgreSQL left: a recycled process id in its lock file would stop the next."""
    run = folder / "run"
    if run.is_symlink():
        shutil.rmtree(run.readlink(), ignore_errors=True)
        run.unlink()
    elif run.exists():
        shutil.rmtree(run)
