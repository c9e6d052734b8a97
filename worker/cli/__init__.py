"""The ``presend`` command; one module a noun, each imported when its command is used."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping
from typing import Any

import click

_COMMANDS = {
    "demo": "worker.cli.demo",
    "simulate": "worker.cli.simulate",
    "worker": "worker.cli.worker",
    "submit": "worker.cli.submit",
    "check": "worker.cli.check",
    "explain": "worker.cli.explain",
    "audit": "worker.cli.audit",
    "doctor": "worker.cli.doctor",
    "alive": "worker.cli.alive",
    "events": "worker.cli.events",
    "dead": "worker.cli.dead",
    "gate": "worker.cli.gate",
    "db": "worker.cli.db",
    "erase": "worker.cli.erase",
    "sandbox": "worker.cli.sandbox",
    "serve": "worker.cli.serve",
    "account": "worker.cli.account",
    "console": "worker.cli.console",
    "bench": "worker.cli.bench",
}
"""Each command's module, which holds it under the command's name; in the order ``--help`` shows."""


class Presend(click.Group):
    """Finds commands late, and turns whatever a command met into one line that says what to do."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command whose module is there."""
        return [name for name in _COMMANDS if self.get_command(ctx, name) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import the module of one command."""
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        try:
            found: click.Command = getattr(importlib.import_module(module), cmd_name)
        except ModuleNotFoundError as exc:
            if exc.name != module:
                raise
            return None
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; its failure is told in one line, with ``--debug`` after the traceback."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:  # whoever read our output has seen enough; click ends quietly
            raise
        except Exception as exc:
            from worker.cli import failures

            if ctx.params.get("debug"):
                traceback.print_exc()
            raise failures.told(exc) from exc


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"presend {version('presend')}")
        ctx.exit()


_SETTINGS: Mapping[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_EPILOG = """\b
Settings come from PRESEND_* in the environment, above all
  PRESEND_BROKER_URL  PRESEND_REDIS_URL  PRESEND_DATABASE_URL
  PRESEND_PROVIDER_URL  PRESEND_PROVIDER_APIKEY
"""


@click.group(cls=Presend, context_settings=dict(_SETTINGS), epilog=_EPILOG)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
)
def main(debug: bool) -> None:
    """Know a mobile number's operator before a recharge and after a failed SMS."""
