"""``presend serve``: the provider's contract, answered by presend."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.failures import Failure
from worker.cli.public_url import public_url_option
from worker.processes.role import EXIT_CONFIG

_EPILOG = """\b
Example:
  presend db upgrade
  presend account create shop --balance 10000     prints the account's key
  presend serve --port 8500 --tls-port 8543 --certfile cert.pem --keyfile key.pem
  curl -d apikey=KEY -d mobile=13972565391 http://127.0.0.1:8500/carrier
  and in a browser: http://127.0.0.1:8500/, the query page; log in with the key

\b
It buys with PRESEND_PROVIDER_APIKEY, needs no running worker, and ends on SIGTERM once the calls in
progress are answered. docs/front-door.md says more. Exit code 78: a setting is wrong.
"""
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("serve", epilog=_EPILOG, short_help="Answer the provider's contract over HTTP.")
@click.option("--port", default=8500, show_default=True, type=click.IntRange(0, 65535), help="For http.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--tls-port", type=click.IntRange(0, 65535), help="For https, at the same time.")
@click.option("--certfile", type=_file, help="Certificate chain for https, PEM.")
@click.option("--keyfile", type=_file, help="Its private key, PEM.")
@public_url_option(
    "Where browsers find the query page, if a proxy or another name shows it; may be repeated."
)
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="Take the browser's address from X-Forwarded-For: only where a proxy is the one way in.",
)
def serve(
    *,
    port: int,
    host: str,
    tls_port: int | None,
    certfile: Path | None,
    keyfile: Path | None,
    public_urls: tuple[str, ...],
    behind_proxy: bool,
) -> None:
    """Serve /carrier, /carrier_batch and /balance, and the query page, to everyone who has an account."""
    from worker import bootstrap, config, logs, memory
    from worker.errors import SettingsError
    from worker.metrics import endpoint
    from worker.processes import preflight
    from worker.serve import running
    from worker.serve.page.site import Access

    tls = None
    if tls_port is not None:
        if certfile is None or keyfile is None:
            raise click.UsageError("https needs a certificate: --certfile FILE --keyfile FILE")
        tls = running.Tls(tls_port, certfile, keyfile)
    elif certfile is not None or keyfile is not None:
        raise click.UsageError("say where https is served: --tls-port PORT")
    try:
        settings = config.load()
        bootstrap.check(settings)
        preflight.require_database(settings.database_url)
        logs.configure(json=settings.log_json)
        presend = bootstrap.this_process()
        upkeep = bootstrap.upkeep()
        endpoint.open_endpoint(settings.metrics_host, settings.metrics_port, role="serve")
        memory.settle_down()
        try:
            access = Access(host, public_urls, behind_proxy)
            running.run(presend, upkeep, host=host, port=port, tls=tls, access=access, on_ready=_say)
        finally:
            presend.close()
    except SettingsError as exc:
        raise Failure(str(exc), exit_code=EXIT_CONFIG) from exc


def _say(urls: list[str]) -> None:
    click.echo(f"presend serve listens on {' and '.join(urls)}")
