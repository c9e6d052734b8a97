"""The sandbox in a process of its own: its start, its bill, and its order to port a number."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from worker.demo import child
from worker.demo.places import Places
from worker.errors import PresendError
from worker.sandbox.provider import DEFAULT_APIKEY as APIKEY

__all__ = ["APIKEY", "Provider", "provider"]

_TIMEOUT_SECONDS = 5.0
_URL = re.compile(r"listens on (http://\S+),").search


@contextmanager
def provider(places: Places, *, latency: float = 1.0) -> Iterator[Provider]:
    """Run a sandbox on a free port, with so many times the document's latency."""
    arguments = ["sandbox", "--port", "0", "--latency", str(latency)]
    with child.running(arguments, places=places, settings={}, output=subprocess.PIPE) as process:
        yield Provider(process)


@dataclass(frozen=True)
class Provider:
    """The sandbox as seen over HTTP."""

    process: child.Process

    @cached_property
    def url(self) -> str:
        """Its base URL; waits until it listens."""
        assert self.process.stdout is not None
        announced = _URL(self.process.stdout.readline())
        if announced is None:
            raise PresendError("the sandbox did not start")
        return announced[1]

    def billed(self) -> int:
        """Look-ups it has sold so far."""
        return int(self._call("/sandbox/bill")["billed"])

    def port(self, msisdn: str, operator: str) -> None:
        """Let a number move to another operator, at once."""
        self._call("/sandbox/port", {"mobile": msisdn, "operator": operator})

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data)  # noqa: S310 - the sandbox's own http:// URL
        direct = build_opener(ProxyHandler({}))  # past any proxy the caller's shell names
        with direct.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return json.load(answer)
