"""RabbitMQ for the tests: a virtual host of our own, or a given one that is held for a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import amqp
import httpx
import pytest

from tests.services.locks import lock
from tests.services.names import is_stale, unique_name

CONNECT_SECONDS = 3
ALL_PERMISSIONS = {"configure": ".*", "write": ".*", "read": ".*"}
QUEUES = ("recharge", "sms", "presend.dead")
EXCHANGE = "presend.events"


def connect_amqp(url: str) -> amqp.Connection:
    """A plain AMQP connection."""
    where = urlsplit(url)
    connection = amqp.Connection(
        host=f"{where.hostname}:{where.port or 5672}",
        userid=where.username or "guest",
        password=where.password or "guest",
        virtual_host=where.path[1:] or "/",
        connect_timeout=CONNECT_SECONDS,
    )
    connection.connect()
    return connection


def amqp_answers(url: str) -> bool:
    try:
        connect_amqp(url).close()
    except (OSError, amqp.AMQPError):
        return False
    return True


@dataclass(frozen=True)
class VirtualHost:
    """Where the tests' queues live."""

    url: str
    # with other test processes: one test at a time
    shared: bool

    @contextlib.contextmanager
    def held(self) -> Iterator[str]:
        """The URL, for one test alone, without presend's queues and exchange before and after."""
        with (
            lock(f"rabbitmq-{quote(self.url.rpartition('@')[2], safe='')}") if self.shared else nullcontext()
        ):
            if self.shared:
                _refuse_queues_in_use(self.url)
            delete_queues(self.url)
            try:
                yield self.url
            finally:
                delete_queues(self.url)


@contextlib.contextmanager
def virtual_host(url: str) -> Iterator[VirtualHost]:
    """A virtual host of this process, made by whichever way the broker offers, or else the given one."""
    name, where = unique_name("vhost"), urlsplit(url)
    own = urlunsplit(where._replace(path=f"/{quote(name)}"))
    for administer in (_by_http, _by_rabbitmqctl):
        admin = administer(url)
        if not admin("add", name):
            continue
        try:
            if amqp_answers(own):  # else it was another broker's port 15672
                for stale in filter(is_stale, admin("list", "").split()):
                    admin("delete", stale)
                yield VirtualHost(own, shared=False)
                return
        finally:
            admin("delete", name)
    yield VirtualHost(url, shared=True)


def _by_http(url: str) -> Callable[[str, str], str]:
    """Add (for the URL's user), list or delete virtual hosts by the management plugin on port 15672."""
    where = urlsplit(url)
    user = where.username or "guest"
    root = f"http://{where.hostname}:15672/api"
    calls: dict[str, list[tuple[str, str, Any]]] = {
        "add": [("PUT", "/vhosts/{}", {}), ("PUT", f"/permissions/{{}}/{user}", ALL_PERMISSIONS)],
        "list": [("GET", "/vhosts", None)],
        "delete": [("DELETE", "/vhosts/{}", None)],
    }

    def administer(verb: str, name: str) -> str:
        names: list[str] = []
        for method, path, body in calls[verb]:
            try:
                answer = httpx.request(
                    method,
                    root + path.format(name),
                    json=body,
                    auth=(user, where.password or "guest"),
                    timeout=CONNECT_SECONDS,
                ).raise_for_status()
                names = [each["name"] for each in answer.json()] if verb == "list" else [name]
            except httpx.HTTPError:
                return ""
        return " ".join(names)

    return administer


def _by_rabbitmqctl(url: str) -> Callable[[str, str], str]:
    """The same by rabbitmqctl, which only root and the broker's user may run, on its machine."""
    where = urlsplit(url)
    command = shutil.which("rabbitmqctl", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin") or ""
    here = command != "" and where.hostname in {"127.0.0.1", "localhost"}
    grant = ["-p", "{}", where.username or "guest", ".*", ".*", ".*"]
    calls = {
        "add": [["add_vhost", "{}"], ["set_permissions", *grant]],
        "list": [["list_vhosts", "--silent"]],
        "delete": [["delete_vhost", "{}"]],
    }

    def administer(verb: str, name: str) -> str:
        said = ""
        for call in calls[verb] if here else []:
            arguments = [command, *(word.format(name) for word in call)]
            done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode:
                return ""
            said = done.stdout or name
        return said

    return administer


def _refuse_queues_in_use(url: str) -> None:
    """Queues of these names that somebody works with are not a test's to delete."""
    for queue in QUEUES:
        with contextlib.closing(connect_amqp(url)) as connection:
            try:
                _, messages, consumers = connection.channel().queue_declare(queue, passive=True)
            except amqp.NotFound:
                continue
        if messages or consumers:
            pytest.fail(
                f"{url} has a queue {queue} with {messages} messages and {consumers} consumers: "
                "point PRESEND_TEST_AMQP_URL elsewhere, or delete it"
            )


def delete_queues(url: str) -> None:
    """Delete presend's queues and exchange, whatever they hold."""
    with contextlib.closing(connect_amqp(url)) as connection:
        channel = connection.channel()
        for queue in QUEUES:
            channel.queue_delete(queue)
        channel.exchange_delete(EXCHANGE)
