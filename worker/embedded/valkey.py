"""Valkey: its start, on a free port and behind a password."""

from __future__ import annotations

import secrets
import socket
from functools import partial

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.embedded.processes import wait_until
from worker.embedded.site import Site
from worker.errors import SettingsError

_PORT_TRIES = 5
_CONF = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir ./
save ""
appendonly {appendonly}
appendfsync always
maxmemory-policy noeviction
maxclients 900
set-proc-title no
"""  # 900 clients fit the customary 1024 open files


def start(site: Site) -> str:
    """Start Valkey on a free port, behind a password of this start; returns its URL."""
    log = site.folder / "valkey.log"
    password = secrets.token_urlsafe(24)
    for tries_left in reversed(range(_PORT_TRIES)):
        try:
            return _start_on(_free_port(), site, password)
        except SettingsError:
            if not tries_left or "Address already in use" not in log.read_text(errors="replace"):
                raise
    raise AssertionError("the last try returns or raises")


def _start_on(port: int, site: Site, password: str) -> str:
    data, log = site.account.make_folder(site.folder / "valkey"), site.folder / "valkey.log"
    text = _CONF.format(port=port, password=password, appendonly="yes" if site.durable else "no")
    with site.account.open(data / "valkey.conf", "w") as conf:
        conf.write(text)
    server = site.start([site.programs.valkey, "valkey.conf"], cwd=data, log=log)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
        wait_until(partial(_is_ready, client), server, log)
    return url


def _is_ready(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:  # refused, or still loading
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
