"""Simulated schedules by the ten thousand: the pipeline over fakes of its seams."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.faults.invariants import BrokenError
from tests.simulation.running import Survey, account_of, survey

_PROCESSES = 2
_AT_ONCE = 500


def run(seeds: range) -> int:
    """Run the schedules of these seeds; return how many items they sent.

    The first that breaks a promise ends the part, told with its seed, a shorter one and how to repeat it.
    """
    return sum(found.items for found in _surveys(seeds))


def _surveys(seeds: range) -> Iterator[Survey]:
    shares = [seeds[begin : begin + _AT_ONCE] for begin in range(0, len(seeds), _AT_ONCE)]
    with ProcessPoolExecutor(_PROCESSES, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(survey, share) for share in shares]):
            found = done.result()
            if found.broken is not None:
                pool.shutdown(cancel_futures=True)
                raise BrokenError(account_of(found.broken))
            yield found
