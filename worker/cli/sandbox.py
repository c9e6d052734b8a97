"""``presend sandbox``: the simulated provider in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

_EPILOG = """\b
Example, in a second terminal:
  presend sandbox --port 8400 --latency 0
  curl -d apikey=7c11272au708345c834b8ue81ac78972 -d mobile=13972565391 http://127.0.0.1:8400/carrier
"""


@click.command("sandbox", epilog=_EPILOG)
@click.option(
    "--port", default=8400, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--apikey",
    default="7c11272au708345c834b8ue81ac78972",
    show_default=True,
    help="The one account's key, 32 characters.",
)
@click.option("--balance", default=1_000_000, show_default=True, help="Look-ups the account starts with.")
@click.option(
    "--fee-type",
    default="prepaid",
    show_default=True,
    type=click.Choice(["prepaid", "postpaid"]),
    help="A postpaid balance may fall below zero.",
)
@click.option(
    "--latency",
    "latency_scale",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Times the documented latency (0.1 s for one number, 1.5 s for 1000); 0 answers at once.",
)
@click.option("--seed", default=0, show_default=True, help="Same seed, same subscribers.")
@click.option(
    "--bill-log",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append a JSON line for every call, with the numbers billed.",
)
@click.option("--quiet", is_flag=True, help="Print nothing.")
def sandbox(  # noqa: PLR0917 - click passes every option by name
    port: int,
    host: str,
    apikey: str,
    balance: int,
    fee_type: str,
    latency_scale: float,
    seed: int,
    bill_log: Path | None,
    quiet: bool,
) -> None:
    """Simulate the look-up provider: its HTTP contract, with faults on order.

    Answers /carrier, /carrier_batch and /balance over real number ranges, bills as a provider does, and is
    steered under /sandbox (docs/sandbox.md).
    """
    from worker.carrier.protocol import FeeType
    from worker.errors import SettingsError
    from worker.sandbox.serving import run

    if len(apikey) != 32:
        raise click.BadParameter("a key has 32 characters", param_hint="--apikey")

    def announce(url: str) -> None:
        click.echo(f"sandbox listens on {url}, balance {balance} ({fee_type}), latency x{latency_scale:g}")
        click.echo(f"  curl -d apikey={apikey} -d mobile=13972565391 {url}/carrier")

    try:
        run(
            host,
            port,
            apikey=apikey,
            balance=balance,
            fee_type=FeeType(fee_type),
            latency_scale=latency_scale,
            seed=seed,
            bill_log=bill_log,
            on_ready=None if quiet else announce,
        )
    except SettingsError as exc:
        raise click.ClickException(str(exc)) from exc
    except KeyboardInterrupt:
        pass
