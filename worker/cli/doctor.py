"""``presend doctor``: what presend stands on, looked at without changing it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from worker.cli.screen import console, print_json, printable, quiet_logs

if TYPE_CHECKING:
    from worker.doctor import Finding

_EPILOG = """\b
Examples:
  presend doctor
  presend doctor --json

\b
Nothing is changed and nothing is bought. Exit code 1: something fails. A warning does not count.
"""
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command("doctor", epilog=_EPILOG, short_help="Check settings, services and the provider.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def doctor(as_json: bool) -> None:
    """Look at every setting and service, and say of each that is not well what to do."""
    quiet_logs()
    findings: list[Finding] = []
    for finding in _findings():
        findings.append(finding)
        if not as_json:
            _show(finding)
    states = [finding.state.value for finding in findings]
    if as_json:
        import msgspec

        print_json({"findings": msgspec.to_builtins(findings), "fails": states.count("fail")})
    else:
        click.echo(f"\n{states.count('fail')} fail, {states.count('warn')} warn, {states.count('ok')} ok")
    sys.exit(1 if "fail" in states else 0)


def _findings() -> Iterator[Finding]:
    from worker import bootstrap, config
    from worker.cli import failures
    from worker.doctor import examine
    from worker.doctor.finding import fail, ok, warn
    from worker.errors import SettingsError

    for name in config.unknown():
        yield warn("settings", f"{name} is no setting", "see docs/settings.md: it is ignored")
    try:
        settings = config.load()
        if settings.provider_apikey:
            bootstrap.check(settings)
    except SettingsError as exc:
        for words in str(exc).split("; "):
            yield fail("settings", words, "write it so; nothing else was looked at")
        return
    given = config.given()
    defaults = len(type(settings).model_fields) - len(given)
    yield ok("settings", f"{len(given)} given, {defaults} by default")
    yield from examine(settings, told=lambda exc: failures.told(exc).message)


def _show(finding: Finding) -> None:
    from rich.text import Text

    line = Text(f"{finding.state.value:5}", style=_STYLES[finding.state.value])
    line.append(f"{finding.subject}: ", style="bold")
    line.append(printable(finding.seen), style="default")
    if finding.todo:
        line.append(f"\n      {printable(finding.todo)}", style="dim")
    screen: Any = console()
    screen.print(line, soft_wrap=True)
