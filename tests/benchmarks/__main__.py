"""``make bench``: measurements, part by part. They assert nothing: read them beside each other.

    make bench                     every part
    make bench PART=drain          one part (several: separated by commas)
    make bench PART=… SCALE=0.1    with a tenth of the messages, rows or rounds, to try; not recorded
    make bench PART=… ROUNDS=1     contestants take turns so often (3)

On a machine that does nothing else. Logs are left in .presend/benchmarks/PART/, records in docs/benchmarks/.
"""

from __future__ import annotations

import os
import shutil
import sys

from tests.benchmarks.ground import Ground
from tests.benchmarks.parts import PARTS
from tests.faults.outcome import ROOT

_FOLDER = ROOT / ".presend" / "benchmarks"


def main(names: list[str]) -> int:
    """Run the parts, one after the other."""
    for name in names or PARTS:
        if name not in PARTS:
            print(f"no part is named {name!r}: there are {', '.join(PARTS)}", file=sys.stderr)
            return 2
    try:
        scale, rounds = float(os.environ.get("SCALE") or 1), int(os.environ.get("ROUNDS") or 3)
    except ValueError:
        scale, rounds = 0.0, 0
    if not 0 < scale <= 100 or rounds < 1:
        print("SCALE is a number above 0, as 0.1, and ROUNDS a whole one from 1", file=sys.stderr)
        return 2
    for name in names or PARTS:
        folder = _FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"{name}: scale {scale:g}, {rounds} rounds", flush=True)
        PARTS[name](Ground(folder, name=name, scale=scale, rounds=rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main([name for argument in sys.argv[1:] for name in argument.split(",") if name]))
