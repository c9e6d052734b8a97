"""The Celery app; ``celery -A worker.app …`` is all that Flower and operators need.

Importing it reads nothing: the app takes its configuration from ``PRESEND_*`` on first use.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup, setup_logging

from worker import (
    compression,
    config,
    lane_commands,  # noqa: F401 - its commands register themselves
    logs,
    rabbitmq_broker,
    redis_broker,
)
from worker.config import Settings
from worker.consumer import BoundItems, Drain, LeaveStoppedLanes
from worker.metrics import endpoint
from worker.portability.requests import Lane
from worker.queues import lane_queues, prefetch


class PresendApp(Celery):
    """Celery, configured from presend's settings when somebody first asks."""

    def on_configure(self) -> None:  # type: ignore[override] # a signal unless a subclass makes it a method
        """Celery calls this once, before it reads its configuration."""
        settings = config.load()
        compression.install()
        if settings.broker_is_redis:
            redis_broker.install()
        elif settings.bulk_receive:
            rabbitmq_broker.install()
        self.config_from_object(celery_settings(settings))


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Return what Celery has to know, given what presend was told."""
    slots = max(settings.slots(lane) for lane in (Lane.RECHARGE, Lane.SMS))
    return {
        "broker_url": settings.broker_url,
        "result_backend": settings.redis_url,
        "result_expires": settings.result_seconds,
        "task_queues": lane_queues(redis=settings.broker_is_redis),
        "task_routes": {"recharge.*": {"queue": "recharge"}, "sms.*": {"queue": "sms"}},
        "task_default_queue": "sms",
        "task_default_exchange": "",
        "task_create_missing_queues": False,
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": True,
        "task_send_sent_event": False,
        "worker_consumer": "worker.consumer:QueueConsumer",
        # Messages are gathered on the consumer's thread and batches run on threads of the lane's own.
        "worker_pool": "solo",
        "worker_concurrency": 1,
        "worker_prefetch_multiplier": prefetch(slots),
        "worker_send_task_events": settings.task_events,
        "worker_enable_prefetch_count_reduction": False,
        # Ours cannot be cancelled; Celery warns about its own default otherwise.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "broker_connection_retry_on_startup": True,
        # Celery would give up after a hundred tries, and end the worker.
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "broker_heartbeat": 10,
        "broker_transport_options": _transport_options(settings),
        "timezone": "UTC",
    }


def _transport_options(settings: Settings) -> dict[str, Any]:
    if settings.broker_is_redis:
        return {
            # kombu would wait for ever for an answer that a dead connection cannot bring
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
        }
    return {"confirm_publish": True}


app = PresendApp("presend", include=["tasks.precheck", "tasks.recheck"])
app.steps["consumer"].update((BoundItems, LeaveStoppedLanes, Drain))


@celeryd_after_setup.connect
def _open_metrics(instance: Any, **_about: Any) -> None:
    """Let a worker be scraped before it reaches its broker; its role is the lanes it was started for."""
    settings, lanes = config.load(), sorted(instance.app.amqp.queues.consume_from)
    endpoint.open_endpoint(settings.metrics_host, settings.metrics_port, role="+".join(lanes))


@setup_logging.connect
def _configure_logs(loglevel: int | str = "INFO", **_options: Any) -> None:
    """Keep Celery from setting up logging of its own."""
    logs.configure(level=loglevel, json=config.load().log_json)
