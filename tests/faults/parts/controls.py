"""Control arms: the same kind of run with one guard switched off. The checker has to object."""

from __future__ import annotations

from dataclasses import dataclass

from tests.faults.invariants import Report, check
from tests.faults.scene import Scene

_MESSAGES = 400


@dataclass(frozen=True)
class Arm:
    """How a guard's absence is shown."""

    # where the workers are killed, once each; none: nobody has to be killed to see it
    crash: str
    # the invariant that does not hold, and in which words
    objection: str
    # whether it belongs to `make test`
    quick: bool = True


ARMS = {
    "late acks": Arm("calling", r"(?m)^I1: .*lost"),
    "claims": Arm("", r"(?m)^I3: .*billed 2 times, listed 0"),
    "intent": Arm("answered", r"(?m)^I3: .*listed 0"),
    "relay": Arm("committed", r"(?m)^I6: .*unmarked", quick=False),
    "event ids": Arm("", r"(?m)^I4: .*does not follow"),
}


def run(scene: Scene, guard: str | None) -> Report:
    """Run two workers without the guard, each killed where its absence tells; check the end.

    None: with every guard on, killed in mid-call.
    """
    arm = ARMS[guard] if guard else Arm("calling", "")
    without = ["--without", guard] if guard else []
    scene.upkeep(*(without if guard == "relay" else []))
    scene.send(_MESSAGES)
    for number in range(2):
        crash = (
            ["--crash", arm.crash, "--kills", scene.folder / "kills.log", "--seed", number]
            if arm.crash
            else []
        )
        scene.worker(*without, *crash, ready=False)
    scene.sent(seconds=60)
    scene.settled(patience_seconds=5 if guard else 60)
    scene.stop()
    return check(scene.evidence())
