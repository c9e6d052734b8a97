"""``presend console``: the operators' web console, and who may use it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.failures import Failure
from worker.cli.operator import by_option, database, who
from worker.cli.operator import reason as _reason
from worker.cli.public_url import public_url_option
from worker.cli.screen import console as screen
from worker.cli.screen import local, print_json, print_table, printable
from worker.processes.role import EXIT_CONFIG

if TYPE_CHECKING:
    from worker.storage.operators import ConsoleOperator

_EPILOG = """\b
Example:
  presend db upgrade
  presend console operator add mei --role act      asks for a password
  presend console --port 8600

\b
It listens on this machine only, unless --host says otherwise. For others give it a certificate, or a proxy
with https in front and --public-url https://console.example.com. docs/console.md says more.
Exit code 78: a setting is wrong.
"""
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_roles = click.Choice(["view", "act"])
_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")


@click.group("console", invoke_without_command=True, epilog=_EPILOG, short_help="The operators' web console.")
@click.option("--port", default=8600, show_default=True, type=click.IntRange(0, 65535))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--certfile", type=_file, help="Certificate chain, PEM: then it speaks https.")
@click.option("--keyfile", type=_file, help="Its private key, PEM.")
@public_url_option("Under which browsers reach it, through a proxy or by a name (repeatable).")
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="Take the browser's address from X-Forwarded-For: only where a proxy is the one way in.",
)
@click.pass_context
def console(  # noqa: PLR0917 - click's options
    context: click.Context,
    port: int,
    host: str,
    certfile: Path | None,
    keyfile: Path | None,
    public_urls: tuple[str, ...],
    behind_proxy: bool,
) -> None:
    """Serve the console: what presend does, what it costs, what is wrong, and the levers to act on it."""
    if context.invoked_subcommand is not None:
        return
    from worker import bootstrap, config, logs
    from worker.console import running
    from worker.errors import SettingsError
    from worker.metrics import endpoint
    from worker.processes import preflight

    if (certfile is None) != (keyfile is None):
        raise click.UsageError("https needs both: --certfile FILE --keyfile FILE")
    try:
        settings = config.load()
        logs.configure(json=settings.log_json)
        preflight.require_database(settings.database_url)
        observing = bootstrap.observing(settings)
        endpoint.open_endpoint(settings.metrics_host, settings.metrics_port, role="console")
        try:
            running.run(
                observing,
                host=host,
                port=port,
                certificate=None if certfile is None or keyfile is None else (certfile, keyfile),
                public_urls=public_urls,
                behind_proxy=behind_proxy,
                on_ready=_say,
            )
        finally:
            observing.close()
    except SettingsError as exc:
        raise Failure(str(exc), exit_code=EXIT_CONFIG) from exc


def _say(url: str) -> None:
    click.echo(f"presend console listens on {url}")


@console.group(
    short_help="Who may use the console.",
    epilog="\b\nExample:\n  presend console operator add mei --role act\n"
    "  presend console operator disable mei --reason 'left the company'\n",
)
def operator() -> None:
    """The people who may use the console. Role view looks at everything, role act also changes things."""


@operator.command(epilog="\b\nExamples:\n  presend console operator add mei --role act\n"
    "  pass show mei | presend console operator add mei --role view\n")  # fmt: skip
@click.argument("name")
@click.option("--role", type=_roles, default="view", show_default=True)
@by_option
def add(name: str, role: str, by: str | None) -> None:
    """Let somebody in. The password is asked for, or read from standard input."""
    from worker.storage import engine, operators

    hashed, by_whom = _password_hash(), who(by)
    with database() as used:
        engine.transact(
            used,
            lambda to: operators.add(to, name, password_hash=hashed, role=operators.Role(role), by=by_whom),
        )
    click.echo(f"{name} may log in, role {role}")


@operator.command("list", epilog="\b\nExample:\n  presend console operator list\n")
@_json
def list_(as_json: bool) -> None:
    """Show who may use the console, and when they last did."""
    from worker.storage import engine, operators

    with database() as used:
        found = engine.read(used, operators.every)
    if as_json:
        for one in found:
            print_json(_as_json(one))
    elif not found:
        click.echo("nobody may use the console yet: presend console operator add NAME --role act")
    else:
        print_table(screen(), _table(found))


@operator.command(epilog="\b\nExample:\n  presend console operator password mei\n")
@click.argument("name")
@by_option
def password(name: str, by: str | None) -> None:
    """Give an operator a new password; whoever is logged in under the name is logged out."""
    from worker.storage import engine, operators

    hashed, by_whom = _password_hash(), who(by)
    with database() as used:
        engine.transact(used, lambda to: operators.set_password(to, name, hashed, by=by_whom))
    click.echo(f"{name} has a new password, and is logged out everywhere")


@operator.command(epilog="\b\nExample:\n  presend console operator role mei act\n")
@click.argument("name")
@click.argument("role", type=_roles)
@by_option
def role(name: str, role: str, by: str | None) -> None:
    """Give an operator another role, at once."""
    from worker.storage import engine, operators

    by_whom = who(by)
    with database() as used:
        engine.transact(used, lambda to: operators.set_role(to, name, operators.Role(role), by=by_whom))
    click.echo(f"{name} has role {role}")


@operator.command(epilog="\b\nExample:\n  presend console operator disable mei --reason 'left the company'\n")
@click.argument("name")
@click.option("--enable", is_flag=True, help="Let the operator in again.")
@click.option("--reason", default="none given", metavar="TEXT", help="Why, for the history.")
@by_option
def disable(name: str, enable: bool, reason: str, by: str | None) -> None:
    """Shut an operator out, and out of what is open."""
    from worker.storage import engine, operators

    by_whom, why = who(by), _reason(reason)
    with database() as used:
        engine.transact(used, lambda to: operators.set_disabled(to, name, not enable, by=by_whom, reason=why))
    click.echo(f"{name} may log in again" if enable else f"{name} is shut out, and logged out everywhere")


def _password_hash() -> str:
    """The hash of a password that is typed twice, or comes as the first line of standard input."""
    from worker.console import passwords

    if sys.stdin.isatty():
        given = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        given = sys.stdin.readline().rstrip("\r\n")
    try:
        return passwords.hashed(given)
    except ValueError as exc:
        raise click.UsageError(f"{exc}: choose a longer one") from exc


def _as_json(one: ConsoleOperator) -> dict[str, Any]:
    return {
        "name": one.name,
        "role": one.role.value,
        "disabled": one.disabled,
        "created_at": one.created_at.isoformat(),
        "last_log_in_at": one.last_log_in_at and one.last_log_in_at.isoformat(),
    }


def _table(found: list[ConsoleOperator]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("name", "role", "status", "since", "last log-in"):
        table.add_column(name)
    for one in found:
        last = "never" if one.last_log_in_at is None else local(one.last_log_in_at)
        cells = (one.name, one.role.value, "shut out" if one.disabled else "may log in")
        table.add_row(*(Text(printable(cell)) for cell in (*cells, local(one.created_at), last)))
    return table
