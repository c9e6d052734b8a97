"""Running schedules by their seeds, and telling of one that broke a promise."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.simulation.choices import Choices, shrunk
from tests.simulation.schedule import ViolationError
from tests.simulation.world import World, installed

_LINES_SHOWN = 120
_SHRINKING_SECONDS = 30.0


def violation(choices: Choices, *, traced: bool = False) -> tuple[str | None, list[str]]:
    """Run one schedule; return the promise it broke, if it broke one, and its trace."""
    world = World(choices, traced=traced)
    return _broken_by(world), world.schedule.trace()


def _broken_by(world: World) -> str | None:
    with installed(world):
        try:
            world.run()
        except ViolationError as broken:
            return str(broken)
        finally:
            world.end()
    return None


@dataclass(frozen=True)
class Survey:
    """What some schedules came to."""

    # items their producers sent
    items: int
    # the first seed whose schedule breaks a promise
    broken: int | None


def survey(seeds: Iterable[int]) -> Survey:
    """Run the schedules of these seeds until one breaks a promise."""
    items = 0
    for seed in seeds:
        world = World(Choices(seed))
        if _broken_by(world) is not None:
            return Survey(items, seed)
        items += len(world.invariants.items)
    return Survey(items, None)


def first_violation(seeds: Iterable[int]) -> int | None:
    """The first of these seeds whose schedule breaks a promise."""
    return survey(seeds).broken


def account_of(seed: int) -> str:
    """What the schedule of a seed breaks, a shorter one that breaks it too, and how to repeat it."""
    choices = Choices(seed)
    broken, _ = violation(choices)
    if broken is None:
        return f"the schedule of seed {seed} keeps every promise"

    until = time.monotonic() + _SHRINKING_SECONDS

    def fails(made: Sequence[int]) -> bool:
        if time.monotonic() > until:
            return False
        found = violation(Choices(replay=made))[0]
        return found is not None and _kind(found) == _kind(broken)

    made = shrunk(choices.made, fails)
    smaller, trace = violation(Choices(replay=made), traced=True)
    return "\n".join(
        [
            f"seed {seed}: {broken}",
            f"with {sum(map(bool, made))} choices instead of {sum(map(bool, choices.made))}: {smaller}",
            *(["…"] if len(trace) > _LINES_SHOWN else []),
            *trace[-_LINES_SHOWN:],
            f"to repeat it: python -m tests.simulation {seed}",
        ]
    )


def _kind(broken: str) -> str:
    return re.sub(r"\d+", "", broken)[:40]


def main(arguments: Sequence[str]) -> int:
    """``python -m tests.simulation SEED`` tells of one schedule, ``… FIRST LAST`` runs all between."""
    first, last = int(arguments[0]), int(arguments[-1])
    if first == last:
        print(account_of(first))  # noqa: T201 - it is asked to
        return 0
    broken = first_violation(range(first, last + 1))
    told = f"schedules {first} to {last}: every promise kept" if broken is None else account_of(broken)
    print(told)  # noqa: T201 - it is asked to
    return int(broken is not None)
