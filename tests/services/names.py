"""Names of what tests make, and what to do where a service is missing."""

from __future__ import annotations

import itertools
import os
import re
import time

import pytest

STALE_SECONDS = 6 * 3600
"""What a killed session left is removed by a session this much later."""

_numbers = itertools.count(1)


def unique_name(kind: str) -> str:
    """A name no other session uses, whose age can be read from it."""
    return f"presend_test_{int(time.time())}_{os.getpid()}_{next(_numbers)}_{kind}"


def is_stale(name: str) -> bool:
    """Whether `name` is a test's, left by a session long gone."""
    made = re.match(r"presend_test_(\d+)_", name)
    return made is not None and time.time() - int(made[1]) > STALE_SECONDS


def missing(service: str, why: str) -> None:
    """A service that is nowhere to be had: a skip at home, a failure in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"no {service}: {why}")
    pytest.skip(f"no {service}: {why}")
