"""Benchmarks run presend as the acceptance tests do: real processes, over each broker."""

from __future__ import annotations

from tests.acceptance.conftest import here, sandbox

__all__ = ["here", "sandbox"]
