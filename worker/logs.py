"""Logging: structlog over the standard library; what may not be shown is masked on the way out.

Any stage may import it. Event names are stable, snake_case, past tense; numbers, keys and message bodies
never go into a log line, and what slips in is masked here. Whatever the values, a record is one line (on a
terminal a traceback follows, indented), without control characters, and no field is longer than 2 kB.
"""

from __future__ import annotations

import json as json_
import logging
import sys
import threading
from contextlib import suppress
from typing import Any

import structlog

from worker.masking import masked
from worker.portability.msisdn import mask_all

_FIELD_BYTES = 2000
_KEPT_OF_BEGINNING = 500
_TRACEBACK = "exception"
_MARGIN = "    | "


def configure(*, level: int | str = logging.INFO, json: bool | None = None, uncaught: bool = True) -> None:
    """Send structlog and the standard library to stderr; JSON unless a terminal is watching.

    ``uncaught``: exceptions nobody caught and Python's warnings become records too.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(formatter(shared, as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore"):  # they log full URLs, key and number included, at INFO
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if uncaught:
        _catch_uncaught()


def formatter(shared: list[Any], *, as_json: bool) -> logging.Formatter:
    """Return what makes a record a line."""
    renderers: list[Any] = (
        [structlog.processors.JSONRenderer(ensure_ascii=False)]
        if as_json
        else [_indented, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _safe_fields, *renderers],
    )


def get(name: str) -> Any:
    """Return the logger of one module: ``get(__name__).info("batch_decided", lane="sms")``."""
    return structlog.get_logger(name)


class _Handler(logging.StreamHandler[Any]):
    """Python would print a record that cannot be formatted with all its arguments: here it is named only."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        lost = {"event": "log_line_lost", "error": getattr(sys.exc_info()[0], "__name__", None)}
        with suppress(OSError, ValueError):  # a closed or full stderr
            self.stream.write(
                json_.dumps(lost | {"logger": _safe(record.name), "line": record.lineno}) + "\n"
            )


def _catch_uncaught() -> None:
    log = get(__name__)

    def of_process(kind: type[BaseException], exc: BaseException, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, exc, trace)
        else:
            log.critical("process_failed", exc_info=(kind, exc, trace))

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            name = args.thread and args.thread.name
            log.critical(
                "thread_failed", thread=name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
            )

    sys.excepthook = of_process
    threading.excepthook = of_thread
    logging.captureWarnings(True)


def _safe_fields(_logger: Any, _method: str, fields: Any) -> Any:
    return {
        _safe(str(name)): _safe_value(value, newline=name == _TRACEBACK) for name, value in fields.items()
    }


def _safe_value(value: Any, *, newline: bool) -> Any:
    """Text and what has a text become safe text; plain numbers stay numbers."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _safe(value, newline=newline)
    try:
        written = repr(value)
    except Exception as exc:  # noqa: BLE001 - a log line is no place to fail
        return f"<{type(value).__name__}: {type(exc).__name__}>"
    shown = _safe(written)
    return value if isinstance(value, int | float) and shown == written else shown


def _safe(text: str, *, newline: bool = False) -> str:
    """Mask, escape what cannot be printed, cut what is overlong; a traceback keeps its lines."""
    text = masked(str(text))
    if not text.isprintable():
        text = mask_all("".join(each if _printable(each, newline) else repr(each)[1:-1] for each in text))
    raw = text.encode()
    if len(raw) > _FIELD_BYTES:  # a traceback says last what went wrong
        begin, end = raw[:_KEPT_OF_BEGINNING], raw[_KEPT_OF_BEGINNING - _FIELD_BYTES + len("…".encode()) :]
        text = f"{begin.decode(errors='ignore')}…{end.decode(errors='ignore')}"
    return text


def _printable(character: str, newline: bool) -> bool:
    return character.isprintable() or (newline and character == "\n")


def _indented(_logger: Any, _method: str, fields: Any) -> Any:
    """On a terminal no line of a traceback can pass for a record."""
    if isinstance(trace := fields.get(_TRACEBACK), str):
        fields[_TRACEBACK] = _MARGIN + trace.replace("\n", f"\n{_MARGIN}")
    return fields
