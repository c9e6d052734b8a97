"""``presend worker``: the lanes and upkeep, supervised."""

from __future__ import annotations

import sys

import click

from worker.cli.failures import Failure
from worker.errors import SettingsError
from worker.processes.role import EXIT_CONFIG, ROLES

_EPILOG = """\b
Examples:
  presend worker               both lanes and upkeep, each a process, restarted when one dies
  presend worker --lane sms    one lane in this very process, as a container wants it

\b
SIGTERM and Ctrl-C finish what is in flight and hand the rest back to the queue; a second one
does not wait. Exit code 78: a setting or a queue is wrong, starting again will not help.
"""


@click.command("worker", epilog=_EPILOG)
@click.option(
    "--lane",
    "roles",
    multiple=True,
    type=click.Choice(ROLES),
    help="Run only this one (repeatable). One alone runs unsupervised.",
)
def worker(roles: tuple[str, ...]) -> None:
    """Take checks from the queues: a process a lane, and one for upkeep."""
    from worker import bootstrap, config, logs
    from worker.processes import preflight
    from worker.processes import role as one_process
    from worker.processes.supervisor import Supervisor, command

    try:
        settings = config.load()
        bootstrap.check(settings)
        preflight.require_database(settings.database_url)
        preflight.require_broker(settings.broker_url)
        wanted = tuple(dict.fromkeys(roles)) or ROLES
        if len(wanted) == 1:
            sys.exit(one_process.run(wanted[0]))
    except SettingsError as exc:
        raise Failure(str(exc), exit_code=EXIT_CONFIG) from exc
    logs.configure(json=settings.log_json)
    sys.exit(Supervisor({role: command(role) for role in wanted}).run())
