"""``--public-url``: the names under which browsers reach a site besides its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

F = TypeVar("F", bound=Callable[..., Any])


def public_url_option(help_text: str) -> Callable[[F], F]:
    """The option, given to the command as ``public_urls``."""
    return click.option(
        "--public-url", "public_urls", multiple=True, metavar="URL", callback=_checked, help=help_text
    )


def _checked(_context: click.Context, _option: click.Parameter, urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        split = urlsplit(url)
        if split.scheme not in {"http", "https"} or not split.hostname:
            name = url.rpartition("//")[2].strip("/") or "query.example.com"
            raise click.BadParameter(f"{url!r} is no address: write it as https://{name}")
    return urls
