"""What other sites make a visitor's browser send is refused, and so is a host that is not ours.

A site that points its own name at our address (DNS rebinding) would be the same origin to a browser: the host
it names gives it away.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

SAFE_METHODS = frozenset({"GET", "HEAD"})
_OURS = {"same-origin", "none"}


def may_change_something(headers: Headers) -> bool:
    """Whether one of our own pages sent this, as far as the browser says.

    Browsers say ``Sec-Fetch-Site`` over https and to this machine, ``Origin`` with every POST. Who says
    neither is no browser that holds a cookie of ours.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in _OURS
    origin, host = headers.get("origin"), headers.get("host", "")
    return origin is not None and urlsplit(origin).netloc.lower() == host.lower() != ""


def host_name(host: str) -> str | None:
    """Return the name in a Host header, in small letters; None where it is none."""
    try:
        split = urlsplit(f"//{host}")
        _ = split.port
    except ValueError:
        return None
    plain = split.netloc == host and "@" not in host
    return split.hostname if plain and split.hostname else None


def known_hosts(listening: str, public_urls: Collection[str]) -> frozenset[str]:
    """Return the names under which a site answers."""
    named = {urlsplit(url).hostname or "" for url in public_urls}
    hosts = {"localhost", "127.0.0.1", "::1", listening.lower().strip("[]"), *named}
    return frozenset(hosts - {"", "0.0.0.0", "::"})  # noqa: S104 - addresses that no request names
