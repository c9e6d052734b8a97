"""A list through the query page in a browser, the server killed on the way, in its quick form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.parts import query_page
from worker.sandbox.provider import Latency
from worker.sandbox.serving import serving


@pytest.mark.timeout(120)
def test_a_list_survives_two_kills_and_comes_back_row_by_row(database_url: str, tmp_path: Path) -> None:
    sandbox = query_page.Turnstile(latency=Latency(scale=0.1))
    with (
        serving(sandbox) as provider_url,
        query_page.sited(database_url, provider_url, tmp_path, job_slots="1") as site,
    ):
        told = query_page.run(site, sandbox, rows=5000)
    assert told.bad_rows == 100
    assert told.calls_open_at_kill == 1
