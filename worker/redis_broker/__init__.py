"""kombu's Redis transport, except that it loses nothing that Redis still has.

kombu pops a message and registers it as unacknowledged a round trip later; a kill or a cut between the two
loses it, and what a dead worker held comes back only after a fixed time. Here a message is always in exactly
one place that is known to Redis: a list of its queue, or the hash of what a holder holds.

``scripts`` moves messages between the two; ``holder`` is who holds them, and tells Redis that it lives;
``elements`` reads what was in a list, whatever it was; ``transport`` makes kombu use the three; ``looking``
counts what waits.
"""

from __future__ import annotations

from kombu import transport as kombu_transports

from worker.redis_broker.looking import waiting

__all__ = ["install", "waiting"]


def install() -> None:
    """Let this process's Celery use this transport for Redis; its URLs stay what they are."""
    for alias in ("redis", "rediss"):
        kombu_transports.TRANSPORT_ALIASES[alias] = f"{__name__}.transport:Transport"
        # what a connection made before found; unknown to the types
        kombu_transports._transport_cache.pop(alias, None)  # type: ignore[attr-defined]
