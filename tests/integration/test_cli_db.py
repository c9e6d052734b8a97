"""``presend db`` on databases empty, older and newer."""

from __future__ import annotations

import psycopg

from tests.commands import environment, presend


def revision_of(url: str) -> str | None:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return row and str(row[0])


def test_upgrade_says_from_where_to_where_and_is_safe_to_repeat(empty_database_url: str) -> None:
    env = environment(database_url=empty_database_url)
    assert presend("db", "check", env=env).returncode == 1
    first = presend("db", "upgrade", env=env)
    revision = revision_of(empty_database_url)
    assert first.stdout == f"database upgraded from no tables to {revision}\n"
    assert presend("db", "upgrade", env=env).stdout == f"database is at {revision} already\n"
    assert presend("db", "check", env=env).returncode == 0


def test_a_newer_releases_database_lacks_nothing(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '2999_01_01'")
    env = environment(database_url=database_url)
    assert presend("db", "check", env=env).returncode == 0
    upgrade = presend("db", "upgrade", env=env)
    assert upgrade.returncode == 1
    assert "A newer presend made the database" in upgrade.stderr


def test_an_unknown_revision_is_told_in_one_line(empty_database_url: str) -> None:
    done = presend("db", "upgrade", "--revision", "nix", env=environment(database_url=empty_database_url))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "'nix'" in done.stderr


def test_a_database_that_is_not_there_says_so(empty_database_url: str) -> None:
    url = empty_database_url.replace("presend_test_", "presend_nix_")
    done = presend("db", "upgrade", env=environment(database_url=url))
    assert done.returncode == 1
    assert "does not exist. Create it (createdb" in done.stderr


def test_a_wrong_setting_names_itself() -> None:
    done = presend("db", "upgrade", env=environment(database_url="mysql://nix"))
    assert done.stderr == "Error: PRESEND_DATABASE_URL must start with postgresql://\n"
