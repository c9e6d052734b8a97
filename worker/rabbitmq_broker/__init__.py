"""kombu's RabbitMQ transport, reading what has arrived in bulk and writing acknowledgements together.

py-amqp asks the system nine times for each message and unpacks its headers one by one, which was a third of
what a message cost (docs/decisions). ``deliveries`` reads a delivery's three frames in one go; ``transport``
lets kombu use it. What is no delivery goes to py-amqp, as everything does over TLS.
"""

from __future__ import annotations

from kombu import transport as kombu_transports


def install() -> None:
    """Let this process's kombu use this transport for RabbitMQ; its URLs stay what they are."""
    for alias in ("amqp", "pyamqp"):
        kombu_transports.TRANSPORT_ALIASES[alias] = f"{__name__}.transport:Transport"
        # what a connection made before found; unknown to the types
        kombu_transports._transport_cache.pop(alias, None)  # type: ignore[attr-defined]
