"""Where a part runs, how large it is to be, and how it records what it found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.benchmarks import record
from tests.faults import ground
from tests.faults.outcome import versions


@dataclass
class Ground(ground.Ground):
    """The faults' ground, for measuring."""

    seed: int = 0
    name: str = ""
    # turns each contestant takes
    rounds: int = 3

    def write(self, figures: dict[str, Any], *urls: str, suffix: str = "") -> None:
        """Record figures measured on the services at these URLs; those of a trial are not kept."""
        if self.scale != 1:
            print(f"not recorded: SCALE={self.scale:g} is a trial")
            return
        turns = "" if self.rounds == 3 else f" ROUNDS={self.rounds}"
        record.write(
            self.name.replace("-", "_") + suffix,
            figures,
            command=f"make bench PART={self.name}{turns}",
            services=versions(*urls),
        )
