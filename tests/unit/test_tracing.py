"""Traces: what happens where OpenTelemetry is not there, or not wanted."""

from __future__ import annotations

import sys

import pytest

from worker import tracing
from worker.errors import SettingsError


def test_nothing_is_traced_without_a_collector() -> None:
    tracing.start("", share=1.0)
    assert not tracing.on()
    assert tracing.traceparent() is None


def test_a_collector_without_the_extra_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"pip install 'presend\[traces\]'"):
        tracing.start("http://127.0.0.1:4318/v1/traces", share=1.0)
    assert not tracing.on()
