"""Whether a process makes progress, by what its own ``/metrics`` says."""

from __future__ import annotations

import time
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

_HELD = "presend_messages_held_oldest_seconds"
_REFRESHED = "presend_fleet_refreshed_timestamp_seconds"
_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - not listened on here
_ANSWER_SECONDS = 5.0


def stuck(host: str, port: int, *, after_seconds: float) -> str | None:
    """Why the process at this port should be started again; None: it is well.

    It is stuck where it does not answer, holds a message for longer than ``after_seconds``, or has upkeep's
    lock and has looked at nothing for so long.
    """
    try:
        text = _read(f"http://{_ANY.get(host, host)}:{port}/metrics")
    except (URLError, OSError) as exc:
        return f"nobody answers on {host}:{port} ({getattr(exc, 'reason', exc)})"
    looked_at = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == _HELD and sample.value > after_seconds:
                return f"lane {sample.labels.get('lane')} has held a message for {sample.value:.0f} s"
            if sample.name == _REFRESHED:
                looked_at = max(looked_at, sample.value)
    if looked_at and time.time() - looked_at > after_seconds:
        return f"upkeep has looked at nothing for {time.time() - looked_at:.0f} s"
    return None


def _read(url: str) -> str:
    """Without the proxy of the environment: this machine's own address is meant."""
    with build_opener(ProxyHandler({})).open(url, timeout=_ANSWER_SECONDS) as answer:
        text: bytes = answer.read()
    return text.decode()
