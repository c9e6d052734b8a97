"""``make faults``: the long form of the fault tests, part by part.

    make faults                         every part that has not passed for this commit
    make faults PART=kills-rabbitmq     one part (several: separated by commas)
    make faults PART=… SEED=7           with the numbers and moments of an earlier run
    make faults PART=… SCALE=0.1        a tenth of it, to try; its figures do not count
    make faults PART=… FORCE=1          although it has passed for this commit

A part's logs are left in .presend/faults/PART/, and what it came to in docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

from tests.faults import outcome
from tests.faults.ground import Ground
from tests.faults.invariants import BrokenError
from tests.faults.parts import PARTS

_FOLDER = outcome.ROOT / ".presend" / "faults"


def main(names: list[str]) -> int:
    """Run the parts; the exit code is 1 where one failed."""
    wanted = names or list(PARTS)
    for name in wanted:
        if name not in PARTS:
            print(f"no part is named {name!r}: there are {', '.join(PARTS)}", file=sys.stderr)
            return 2
    return int(not all([_run(name) for name in wanted]))  # noqa: C419 - every one, whatever became of the others


def _run(name: str) -> bool:
    scale = float(os.environ.get("SCALE") or 1)
    passed = _FOLDER / f"{name}.passed"
    has_passed = passed.exists() and passed.read_text() == outcome.commit()
    if scale == 1 and has_passed and not os.environ.get("FORCE"):
        print(f"{name}: passed for this commit before (FORCE=1 runs it again)")
        return True
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1, 1_000_000))
    folder = _FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    minutes = PARTS[name].minutes * scale
    print(
        f"{name}: seed {seed}, scale {scale:g}, about {minutes:.0f} min, logs in {_shown(folder)}", flush=True
    )
    started = time.monotonic()
    try:
        found = PARTS[name].run(Ground(folder, seed, scale))
    except (BrokenError, AssertionError) as exc:
        print(f"{name}: FAILED after {time.monotonic() - started:.0f} s\n{exc}", file=sys.stderr)
        return False
    record = found.record(seed=seed, command=f"make faults PART={name} SEED={seed}")
    print(f"{name}: passed in {time.monotonic() - started:.0f} s")
    print(json.dumps(record, indent=2, ensure_ascii=False))
    if scale == 1:
        outcome.write(name, record)
        passed.write_text(outcome.commit())
    return True


def _shown(folder: Path) -> str:
    return str(folder.relative_to(outcome.ROOT))


if __name__ == "__main__":
    sys.exit(main([name for argument in sys.argv[1:] for name in argument.split(",") if name]))
