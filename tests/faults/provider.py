"""The provider in its own process: ``python -m tests.faults.provider LOG LATENCY_SCALE``.

The sandbox, which writes a line to LOG before it works a call and one before it answers, each on the disk
(fsync) before it goes on: whoever dies meanwhile, the log says what was asked and what was billed.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worker.carrier.protocol import FeeType
from worker.sandbox.bill import Bill
from worker.sandbox.provider import DEFAULT_APIKEY, Account, Latency, Sandbox
from worker.sandbox.serving import serving


class BillLog:
    """Lines on the disk. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    def write(self, **line: Any) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.fdatasync(self._file)


class LoggedBill(Bill):
    """The sandbox's bill, each call also a line that says which numbers were billed."""

    def __init__(self, log: BillLog, call: threading.local) -> None:
        super().__init__()
        self._log, self._call = log, call

    def add(self, endpoint: str, numbers: int, codes: Counter[int], billed: Sequence[str]) -> None:
        super().add(endpoint, numbers, codes, billed)
        self._log.write(call=self._call.number, ended=time.time(), billed=list(billed))


class LoggedSandbox(Sandbox):
    """The sandbox, with a log of calls from their beginning."""

    def __init__(self, log: BillLog, latency: Latency) -> None:
        super().__init__(accounts=[Account(DEFAULT_APIKEY, FeeType.POSTPAID, 0)], latency=latency)
        self._log, self._call, self._calls = log, threading.local(), itertools.count(1)
        self.bill = LoggedBill(log, self._call)

    def ask(self, apikey: str, mobiles: Sequence[str], *rest: Any) -> Any:
        self._call.number = next(self._calls)
        self._log.write(call=self._call.number, began=time.time(), mobiles=list(mobiles))
        return super().ask(apikey, mobiles, *rest)


def main() -> None:
    sandbox = LoggedSandbox(BillLog(Path(sys.argv[1])), Latency(scale=float(sys.argv[2])))
    with serving(sandbox) as url:
        print(f"provider {url} ready", flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
