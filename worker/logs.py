"""Logging: structlog over the standard library, with every mobile number masked on the way out.

A leaf: any stage may import it. Event names are stable, snake_case, past tense; numbers,
keys and message bodies never go into a log line, and what slips in is masked here.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from worker.portability.msisdn import mask_all

_FIELD_LIMIT = 2000
"""Characters of one field that a log line may carry."""
_KEPT_OF_BEGINNING = 500


def configure(*, level: int | str = logging.INFO, json: bool | None = None) -> None:
    """Send structlog and the standard library to stderr; JSON unless a terminal is watching."""
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _mask_fields,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _mask_fields, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore"):  # they log full URLs, key and number included, at INFO
        logging.getLogger(chatty).setLevel(logging.WARNING)


def get(name: str) -> Any:
    """Return the logger of one module: ``get(__name__).info("batch_decided", lane="sms")``."""
    return structlog.get_logger(name)


def _mask_fields(_logger: Any, _method: str, fields: Any) -> Any:
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = _safe(value)
    return fields


def _safe(text: str) -> str:
    """Mask numbers, then cut what is overlong; control characters are escaped outside tracebacks."""
    masked = mask_all(text)
    if len(masked) > _FIELD_LIMIT:  # a traceback says last what went wrong
        masked = f"{masked[:_KEPT_OF_BEGINNING]}…{masked[_KEPT_OF_BEGINNING - _FIELD_LIMIT :]}"
    return masked if "\nTraceback" in masked or masked.startswith("Traceback") else _escaped(masked)


def _escaped(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
