"""A prepaid balance under callers at once, the front door killed twice on the way, in its quick form."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.provider import WatchedSandbox
from tests.faults.parts import prepaid, query_page
from worker.sandbox.provider import Latency
from worker.sandbox.serving import serving


def test_two_kills_on_the_way_to_an_empty_balance(database_url: str, tmp_path: Path) -> None:
    sandbox = WatchedSandbox(latency=Latency(scale=0.1))
    with (
        serving(sandbox) as provider_url,
        query_page.sited(database_url, provider_url, tmp_path) as site,
    ):
        told = prepaid.run(site, sandbox, balance=200, callers=8, numbers=1000, hurry=True)
    assert told.listed_released + told.listed_unsent <= 2 * 8
