"""``make openapi``: schemathesis holds docs/openapi.yaml to a running front door, 2,000 cases an operation.

It runs in an environment of its own (requirements.txt beside this file). Every case carries a good key, or
hardly any would get past it; the sandbox answers at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.front_door import front_door
from tests.services import Services, database_url, own_database
from worker.carrier.protocol import FeeType
from worker.sandbox.provider import Latency, Sandbox
from worker.sandbox.serving import serving
from worker.storage.migrations import upgrade

ROOT = Path(__file__).parents[2]
_KEY = "Key: {type: string, minLength: 32, maxLength: 32}"
# HTTP 200 for every code, also for what is malformed and for the wrong method of a batch
_NOT_PROMISED = "negative_data_rejection,unsupported_method,missing_required_header,positive_data_acceptance"


def main(cases: int) -> int:
    """Return schemathesis' exit code."""
    services = Services()
    try:
        server = services.postgres()
        with own_database(server, "openapi") as name, serving(Sandbox(latency=Latency(scale=0))) as provider:
            url = database_url(server, name)
            upgrade(url)
            with front_door(url, provider) as front, tempfile.TemporaryDirectory() as folder:
                key = front.account(fee_type=FeeType.POSTPAID, balance=0)
                document = (ROOT / "docs" / "openapi.yaml").read_text("utf-8")
                assert _KEY in document
                with_key = Path(folder) / "openapi.yaml"
                with_key.write_text(
                    document.replace(_KEY, f"Key: {{type: string, enum: ['{key}']}}"), "utf-8"
                )
                command = [ROOT / ".venv" / "schemathesis" / "bin" / "schemathesis", "run", with_key]
                options = ["--url", front.url, "-n", str(cases), "--exclude-checks", _NOT_PROMISED]
                return subprocess.run([*command, *options], cwd=folder, check=False).returncode
    finally:
        services.close()


if __name__ == "__main__":
    sys.exit(main(int(os.environ.get("CASES") or 2000)))
