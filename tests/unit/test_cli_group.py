"""The ``presend`` command itself: quick, complete, and plain about failures."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import click
import psycopg
import pytest
from click.testing import CliRunner

from tests.commands import environment, presend
from worker.cli import _COMMANDS, Presend, main
from worker.cli.failures import told
from worker.errors import PresendError, SettingsError, StorageUnavailable

HEAVY = {"celery", "kombu", "sqlalchemy", "alembic", "httpx", "pydantic", "redis", "rich", "starlette"}


def test_help_waits_for_no_library() -> None:
    code = (
        "import json, sys\nfrom worker.cli import main\nmain(['--help'], standalone_mode=False)\n"
        "print(json.dumps([name for name in sys.modules if '.' not in name]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert HEAVY.isdisjoint(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", main.list_commands(click.Context(main)))
def test_every_command_has_help_with_an_example(name: str) -> None:
    found = CliRunner().invoke(main, [name, "--help"])
    assert found.exit_code == 0
    assert "Example" in found.stdout
    command = main.get_command(click.Context(main), name)
    for sub in getattr(command, "commands", {}):
        assert "Example" in CliRunner().invoke(main, [name, sub, "--help"]).stdout


def test_a_command_whose_module_is_missing_is_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_COMMANDS, "later", "worker.cli.later")
    assert "later" not in CliRunner().invoke(main, ["--help"]).stdout
    assert CliRunner().invoke(main, ["later"]).exit_code == 2


def test_a_command_whose_module_is_broken_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_COMMANDS, "broken", "worker.nothing.here")
    with pytest.raises(ModuleNotFoundError):
        main.get_command(click.Context(main), "broken")


def test_version() -> None:
    assert presend("--version", env=environment()).stdout.startswith("presend 0.")


@pytest.mark.parametrize(
    ("says", "words", "advice"),
    [
        (
            'FATAL:  database "presend" does not exist',
            'PostgreSQL: database "presend" does not exist. ',
            'Create it (createdb "presend"), or mend PRESEND_DATABASE_URL; then run presend db upgrade',
        ),
        (
            'FATAL:  password authentication failed for user "presend"',
            'PostgreSQL refuses the connection: password authentication failed for user "presend". ',
            "Mend user and password in PRESEND_DATABASE_URL",
        ),
        (
            "Connection refused\n\tIs the server running on that host",
            'PostgreSQL does not answer: connection to server at "db" failed: Connection refused. ',
            "Start it, or mend PRESEND_DATABASE_URL",
        ),
    ],
)
def test_what_postgres_refused_says_what_to_do(says: str, words: str, advice: str) -> None:
    cause = psycopg.OperationalError(f'connection failed: connection to server at "db" failed: {says}')
    shown = StorageUnavailable("…")
    shown.__context__ = cause  # worker.storage raises `from None`, which hides it and keeps it
    shown.__suppress_context__ = True
    assert told(shown).message == words + advice


def test_a_missing_table_says_upgrade() -> None:
    assert "run presend db upgrade" in told(psycopg.errors.UndefinedTable("relation …")).message


def test_our_own_errors_speak_for_themselves() -> None:
    assert told(SettingsError("PRESEND_X is wrong")).message == "PRESEND_X is wrong"
    assert told(PresendError("so it is")).message == "so it is"


def test_a_number_in_a_failure_is_masked() -> None:
    assert "139****5391" in told(ValueError("no 13972565391 here")).message


def _failing(exc: Exception) -> Presend:
    group = Presend("presend", params=[click.Option(["--debug"], is_flag=True)])

    @click.command("fail")
    def fail() -> None:
        raise exc

    group.get_command = lambda _ctx, _name: fail  # type: ignore[method-assign]
    return group


def test_a_failure_is_one_line_and_a_traceback_only_with_debug() -> None:
    plain = CliRunner().invoke(_failing(ValueError("so much\nfor that")), ["fail"])
    assert plain.exit_code == 1
    assert plain.stderr == "Error: unexpected ValueError: so much (presend --debug … shows where)\n"
    debugged = CliRunner().invoke(_failing(ValueError("so much")), ["--debug", "fail"])
    assert "Traceback" in debugged.stderr


def test_a_closed_pipe_is_no_failure() -> None:
    found = CliRunner().invoke(_failing(OSError(errno.EPIPE, "Broken pipe")), ["fail"])
    assert found.stderr == ""


@pytest.mark.parametrize("command", ["serve", "console"])
@pytest.mark.parametrize("url", ["query.example.com", "https://", "query.example.com:8443"])
def test_a_public_url_without_a_scheme_is_refused_with_the_one_that_is_meant(command: str, url: str) -> None:
    done = CliRunner().invoke(main, [command, "--public-url", url])
    assert done.exit_code == 2
    assert "write it as https://query.example.com" in done.output
