"""Traces for OpenTelemetry: off, and without cost, unless a collector is named.

A message's span continues its producer's trace (header ``traceparent``) and ends with its settlement; its
event carries the trace on, to the subscriber. A batch's span, with the provider call, the commit and the
publishing in it, is a part of the same trace where the batch holds one message, and linked to its messages
where it holds many. No attribute holds a number or a reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from worker.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

_TRACEPARENT = "traceparent"
_NANOSECONDS = 1_000_000_000
_EXPORT_SECONDS = 5.0

_tracer: Tracer | None = None


def start(endpoint: str, *, share: float) -> None:
    """Send spans to a collector (OTLP over HTTP, its whole URL); an empty one: trace nothing.

    ``share`` of the traces that begin here are kept; a producer's own decision stands. ``SettingsError``
    where the extra ``traces`` is not installed.
    """
    if not endpoint:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    except ImportError:
        raise SettingsError(
            "PRESEND_TRACES_ENDPOINT is set, but OpenTelemetry is missing: pip install 'presend[traces]', "
            "or unset it"
        ) from None
    start_with(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS), share=share)


def start_with(exporter: SpanExporter, *, share: float = 1.0) -> None:
    """Send spans wherever the exporter does."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

    global _tracer  # noqa: PLW0603 - as logging's, it is the process's
    provider = TracerProvider(
        resource=Resource.create({"service.name": "presend"}),
        sampler=ParentBased(TraceIdRatioBased(share)),
    )
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    _tracer = provider.get_tracer("presend")


def on() -> bool:
    """Whether anything is traced."""
    return _tracer is not None


def received(headers: Mapping[str, Any] | None, *, task: str, lane: str, at: datetime) -> Span | None:
    """Begin the span of a message; None while nothing is traced."""
    if _tracer is None:
        return None
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an extra

    return _tracer.start_span(
        task,
        context=_context_of(headers),
        kind=SpanKind.CONSUMER,
        start_time=int(at.timestamp() * _NANOSECONDS),
        attributes={"messaging.destination.name": lane, "messaging.operation.type": "process"},
    )


def ended(span: Span | None, outcome: str) -> None:
    """End a message's span."""
    if span is not None:
        span.set_attribute("presend.outcome", outcome)
        span.end()


@contextmanager
def batch(batch_id: str, lane: str, messages: Iterable[Span | None]) -> Iterator[None]:
    """Trace a batch of requests that came in these messages."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import Link, set_span_in_context  # noqa: PLC0415 - an extra

    spans = list({id(span): span for span in messages if span is not None}.values())
    alone = len(spans) == 1
    with _current(
        f"batch {lane}",
        context=set_span_in_context(spans[0]) if alone else None,
        links=[] if alone else [Link(span.get_span_context()) for span in spans],
        attributes={"presend.batch_id": batch_id, "presend.lane": lane, "presend.messages": len(spans)},
    ) as whole:
        if not alone:
            for span in spans:
                span.add_link(whole.get_span_context())
        yield


@contextmanager
def step(name: str, **attributes: int | str) -> Iterator[None]:
    """Trace a step of the batch that this thread runs."""
    if _tracer is None:
        yield
        return
    with _current(name, attributes={f"presend.{key}": value for key, value in attributes.items()}):
        yield


def traceparent(span: Span | None = None) -> str | None:
    """The header by which somebody continues a message's trace, or this thread's; None: nothing is traced."""
    if _tracer is None:
        return None
    from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - an extra
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    carrier: dict[str, str] = {}
    context = None if span is None else set_span_in_context(span)
    TraceContextTextMapPropagator().inject(carrier, context)
    return carrier.get(_TRACEPARENT)


@contextmanager
def _current(name: str, **about: Any) -> Iterator[Span]:
    """Make a span this thread's; of an error that ends it only the kind is told, for its text may quote."""
    from opentelemetry.trace import StatusCode  # noqa: PLC0415 - an extra

    assert _tracer is not None
    with _tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False, **about
    ) as span:
        try:
            yield span
        except Exception as exc:
            span.set_attribute("error.type", type(exc).__name__)
            span.set_status(StatusCode.ERROR)
            raise


def _context_of(headers: Mapping[str, Any] | None) -> Any:
    from opentelemetry.context import Context  # noqa: PLC0415 - an extra
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    found = (headers or {}).get(_TRACEPARENT)
    carrier = {_TRACEPARENT: found} if isinstance(found, str) else {}
    return TraceContextTextMapPropagator().extract(carrier, Context())
