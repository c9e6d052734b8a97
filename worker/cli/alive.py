"""``presend alive``: whether the process beside this command makes progress, for containers' probes."""

from __future__ import annotations

import click

from worker.cli.failures import Failure

_EPILOG = """\b
Examples:
  presend alive
  presend alive --stuck-after 300 --port 9465

\b
Exit code 1: start it again. It is meant for a container with one process of presend. A service that is away
for longer than --stuck-after looks the same; starting again does no harm then: messages are with the broker.
"""


@click.command("alive", epilog=_EPILOG, short_help="Whether this machine's process makes progress.")
@click.option(
    "--stuck-after",
    "after_seconds",
    default=900.0,
    show_default=True,
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="A message held for so long means that it is stuck.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="[default: PRESEND_METRICS_PORT]")
def alive(after_seconds: float, port: int | None) -> None:
    """Ask the process's own /metrics: it must answer, and hold no message it makes no progress with."""
    from worker import config
    from worker.metrics import liveness

    settings = config.load()
    asked = port or settings.metrics_port
    if not asked:
        raise Failure("PRESEND_METRICS_PORT is 0: this needs it")
    why = liveness.stuck(settings.metrics_host, asked, after_seconds=after_seconds)
    if why is not None:
        raise Failure(why)
    click.echo("it makes progress")
