"""Simulated schedules by the ten thousand: the pipeline over fakes of its seams.

What has passed is kept by commit, for they take both cores of a small machine an hour: a run that was cut off
goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.faults import outcome
from tests.faults.invariants import BrokenError
from tests.simulation.running import account_of, survey

_PROCESSES = 2
_AT_ONCE = 500
_SAID_EACH = 5_000


def run(seeds: range) -> int:
    """Run the schedules of these seeds; return how many items they sent.

    The first that breaks a promise ends the part, told with its seed, a shorter one and how to repeat it.
    """
    kept = outcome.ROOT / ".presend" / "simulated" / f"{outcome.commit()}.txt"
    kept.parent.mkdir(parents=True, exist_ok=True)
    passed = _read(kept)
    shares = [seeds[begin : begin + _AT_ONCE] for begin in range(0, len(seeds), _AT_ONCE)]
    left = [share for share in shares if _name(share) not in passed]
    done = len(seeds) - sum(map(len, left))
    with kept.open("a") as file:
        for share, items in _surveyed(left):
            file.write(f"{_name(share)} {items}\n")
            file.flush()
            passed[_name(share)] = items
            done += len(share)
            if done % _SAID_EACH < _AT_ONCE:
                sys.stderr.write(f"{done:,} of {len(seeds):,} schedules\n")
    return sum(passed[_name(share)] for share in shares)


def _surveyed(shares: list[range]) -> Iterator[tuple[range, int]]:
    with ProcessPoolExecutor(_PROCESSES, multiprocessing.get_context("spawn")) as pool:
        begun = {pool.submit(survey, share): share for share in shares}
        for ended in as_completed(begun):
            found = ended.result()
            if found.broken is not None:
                pool.shutdown(cancel_futures=True)
                raise BrokenError(account_of(found.broken))
            yield begun[ended], found.items


def _read(kept: Path) -> dict[str, int]:
    """Items of the shares that have passed, by their names."""
    lines = kept.read_text().splitlines() if kept.exists() else []
    return {name: int(items) for name, _, items in (line.partition(" ") for line in lines)}


def _name(share: range) -> str:
    return f"{share[0]}-{share[-1]}"
