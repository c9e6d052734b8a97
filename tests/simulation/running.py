"""Running schedules by their seeds, and telling of one that broke a promise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tests.simulation.choices import Choices, shrunk
from tests.simulation.schedule import ViolationError
from tests.simulation.world import World, installed

_LINES_SHOWN = 120


def violation(choices: Choices, *, traced: bool = False) -> tuple[str | None, list[str]]:
    """Run one schedule; return the promise it broke, if it broke one, and its trace."""
    world = World(choices, traced=traced)
    with installed(world):
        try:
            world.run()
        except ViolationError as broken:
            return str(broken), world.schedule.trace()
        finally:
            world.end()
    return None, world.schedule.trace()


def first_violation(seeds: Iterable[int]) -> int | None:
    """The first of these seeds whose schedule breaks a promise."""
    return next((seed for seed in seeds if violation(Choices(seed))[0] is not None), None)


def account_of(seed: int) -> str:
    """What the schedule of a seed breaks, a shorter one that breaks it too, and how to repeat it."""
    choices = Choices(seed)
    broken, _ = violation(choices)
    if broken is None:
        return f"the schedule of seed {seed} keeps every promise"

    def fails(made: Sequence[int]) -> bool:
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
