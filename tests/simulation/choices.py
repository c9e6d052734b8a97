"""The choices a schedule is made of: drawn from a seed, recorded, replayed, and made fewer where it fails."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence


class Choices:
    """Draws from a seed, or replays what was drawn; past its end every choice is 0: nothing happens."""

    def __init__(self, seed: int | None = None, *, replay: Sequence[int] = ()) -> None:
        self._random = None if seed is None else random.Random(seed)
        self._replay = iter(replay)
        self.made: list[int] = []

    def below(self, options: int) -> int:
        """A number from 0 to ``options`` - 1."""
        if self._random is not None:
            chosen = int(self._random.random() * options)
        else:
            chosen = min(next(self._replay, 0), options - 1)
        self.made.append(chosen)
        return chosen

    def chance(self, probability: float) -> bool:
        """Whether something of this probability happens now."""
        if self._random is not None:
            chosen = int(self._random.random() < probability)
        else:
            chosen = min(next(self._replay, 0), 1)
        self.made.append(chosen)
        return bool(chosen)


def shrunk(made: Sequence[int], fails: Callable[[Sequence[int]], bool], *, tries: int = 1500) -> list[int]:
    """The fewest choices other than 0 with which a schedule still ``fails``, as far as ``tries`` go."""
    best = list(made)
    left = tries
    size = max(1, len(best) // 2)
    while size and left > 0:
        start = 0
        while start < len(best) and left > 0:
            for candidate in (
                best[:start] + best[start + size :],
                best[:start] + [0] * len(best[start : start + size]) + best[start + size :],
            ):
                if candidate == best or (len(candidate) == len(best) and not any(best[start : start + size])):
                    continue
                left -= 1
                if fails(candidate):
                    best = candidate
                    break
            else:
                start += size
                continue
            if not any(best[start:]):
                break
        size //= 2
    while best and not best[-1]:
        best.pop()
    return best
