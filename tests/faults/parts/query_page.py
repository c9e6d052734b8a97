"""A list through the query page in a browser: paused, all killed, resumed, killed again, downloaded.

``presend serve`` is a process of its own; the provider is in this one, and outlives it.
"""

from __future__ import annotations

import csv
import io
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import psycopg
from playwright.sync_api import Page

from tests.acceptance.processes import Process
from tests.acceptance.provider import WatchedSandbox
from tests.acceptance.waiting import eventually
from tests.browser import chromium, enter_key, policy_breaches
from tests.commands import command, environment
from worker.carrier.protocol import FeeType
from worker.portability.records import Status
from worker.sandbox.provider import DEFAULT_APIKEY, Latency
from worker.storage import accounts, engine
from worker.storage.engine import connect

BAD = {
    "1390000000": "A mobile number has 11 digits.",
    "12900000000": "A mobile number begins with 13 to 19.",
    "1.39E+10": "A spreadsheet has shortened the number",
    "": "There is no number in this row.",
    "=HYPERLINK(1)": "It holds other characters",
    "139O0000000": "It holds other characters",
}
_CODES = {Status.INVALID: "-3", Status.UNKNOWN: "-4"}


@dataclass(frozen=True)
class List:
    """The rows of a list: an eighth repeat earlier numbers, one in fifty holds none."""

    # what stands in each row's column of numbers
    cells: list[str]

    @classmethod
    def of(cls, rows: int) -> List:
        cells, numbers, bad = (
            list[str](),
            (f"{13900000000 + 7 * n}" for n in itertools.count()),
            itertools.cycle(BAD),
        )
        for row in range(rows):
            if row % 50 == 49:
                cells.append(next(bad))
            elif row % 8 == 7:
                cells.append(cells[row // 2 // 8 * 8])
            else:
                cells.append(next(numbers))
        return cls(cells)

    @property
    def numbers(self) -> list[str]:
        """The distinct numbers."""
        return list(dict.fromkeys(cell for cell in self.cells if cell not in BAD))

    def as_file(self) -> bytes:
        """As a Chinese spreadsheet program writes it."""
        rows = [f"客户{n},{cell},30" for n, cell in enumerate(self.cells)]
        return "\r\n".join(["姓名,手机号,金额", *rows, ""]).encode("gb18030")


class Turnstile(WatchedSandbox):
    """A provider that lets calls for many numbers in one by one, where it is told to."""

    def __init__(self, *, latency: Latency) -> None:
        super().__init__(latency=latency)
        self._free, self._permits = Event(), Semaphore(0)
        self._free.set()

    def ask(self, apikey: str, mobiles: Sequence[str], *rest: Any) -> Any:
        while len(mobiles) > 1 and not self._free.is_set():
            if self._permits.acquire(timeout=0.05):
                break
        return super().ask(apikey, mobiles, *rest)

    def close(self) -> None:
        """Let no such call in from now on."""
        self._free.clear()

    def let_one_in(self) -> None:
        """Let the one in that comes next, or waits."""
        self._permits.release()

    def open(self) -> None:
        """Let all in from now on."""
        self._free.set()


@dataclass
class Told:
    """What the run came to."""

    rows: int
    numbers: int
    bad_rows: int
    seconds: float = 0.0
    upload_seconds: float = 0.0
    # from the first kill until the provider was asked again, from the second until an answer was stored
    recoveries: list[float] = field(default_factory=list)
    calls_open_at_kill: int = 0
    billed: int = 0
    billed_again_listed: int = 0
    billed_again_unlisted: int = 0
    # rows of the result that are not what the provider says
    wrong: int = 0
    charged: int = 0


@dataclass
class Site:
    """``presend serve``, which can be killed and comes back where it was."""

    database_url: str
    provider_url: str
    folder: Path
    settings: dict[str, str]
    port: int = 0
    _running: Process | None = None
    _starts: Iterator[int] = field(default_factory=itertools.count)

    def start(self) -> None:
        env = environment(
            broker_url="redis://127.0.0.1:1/0",
            database_url=self.database_url,
            provider_url=self.provider_url,
            provider_apikey=DEFAULT_APIKEY,
            **self.settings,
        )
        line = command("serve", "--port", str(self.port))
        process = self._running = Process(f"serve-{next(self._starts)}", line, env, self.folder)
        process.wait_for("presend serve listens on", seconds=60)
        told = next(each for each in process.log.splitlines() if each.startswith("presend serve listens"))
        self.port = int(told.rpartition(":")[2])

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rows(self, query: str) -> list[Any]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query).fetchall()  # type: ignore[arg-type]

    def done(self) -> int:
        """Numbers of the job of which is known what became of them."""
        found = self.rows("SELECT not_ported + ported + virtual + unknown + invalid + unanswered FROM job")
        return int(found[0][0])


@contextmanager
def sited(database_url: str, provider_url: str, folder: Path, **settings: str) -> Iterator[Site]:
    """A site that is killed at the end."""
    site = Site(database_url, provider_url, folder, settings)
    try:
        yield site
    finally:
        site.kill()


def run(site: Site, sandbox: Turnstile, *, rows: int, meanwhile: Callable[[], None] = lambda: None) -> Told:
    """Tell the story; ``meanwhile`` happens while the site is down for the first time."""
    given = List.of(rows)
    bad = sum(cell in BAD for cell in given.cells)
    told = Told(rows, len(given.numbers), bad)
    key = _account(site, 2 * rows)
    site.start()
    with chromium() as browser:
        page = browser.new_page(locale="en-US")
        breaches = policy_breaches(page)
        _log_in(page, site.url, key)
        _look_up_one(page, given.numbers[0])
        sandbox.close()
        began = time.monotonic()
        page.set_input_files("#list", {"name": "充值.csv", "mimeType": "text/csv", "buffer": given.as_file()})
        page.get_by_role("button", name="Start").click()
        page.wait_for_url("**/jobs/*", timeout=120_000)
        told.upload_seconds = time.monotonic() - began
        _see_progress(page, sandbox)
        _pause(page, site, sandbox)
        stood_at = site.done()
        site.kill()
        meanwhile()
        killed_at = time.monotonic()
        site.start()
        page.reload()
        assert page.locator(".badge").first.inner_text() == "Paused"
        assert site.done() == stood_at > 0
        page.get_by_role("button", name="Resume").click()
        page.wait_for_selector(".notice")  # a page that is killed while it loads polls nothing
        page.wait_for_load_state()
        eventually(sandbox.at_the_door, "the next call", seconds=60)
        told.recoveries.append(time.monotonic() - killed_at)
        told.calls_open_at_kill = len(sandbox.at_the_door())
        site.kill()
        sandbox.open()
        _come_back(site, told)
        # nobody touches the page: it goes on by itself
        page.wait_for_selector(".badge.good", timeout=1_200_000)
        told.seconds = time.monotonic() - began
        _compare(page, sandbox, given, told)
        _explained(page, given)
        assert not breaches
    _account_for(site, sandbox, given, told)
    return told


def _account(site: Site, balance: int) -> str:
    database = connect(site.database_url, connections=1)
    _, key = engine.transact(
        database, lambda to: accounts.create(to, "shop", fee_type=FeeType.PREPAID, balance=balance, by="mei")
    )
    database.dispose()
    return key


def _log_in(page: Page, url: str, key: str) -> None:
    page.goto(f"{url}/")
    assert page.url.endswith("/log-in")
    enter_key(page, key)
    page.wait_for_url(f"{url}/")


def _look_up_one(page: Page, number: str) -> None:
    page.get_by_label("Mobile number").fill(number)
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer .pairs, #answer .badge")


def _see_progress(page: Page, sandbox: Turnstile) -> None:
    """The bar moves with each call, without a reload."""
    seen = 0.0
    for _ in range(2):
        sandbox.let_one_in()
        page.wait_for_function("seen => document.querySelector('#bar').value > seen", arg=seen)
        seen = page.evaluate("document.querySelector('#bar').value")


def _pause(page: Page, site: Site, sandbox: Turnstile) -> None:
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector(".badge.warn")
    assert "The list is paused" in page.inner_text("main")
    for _ in sandbox.at_the_door():
        sandbox.let_one_in()
    eventually(
        lambda: not site.rows("SELECT FROM job_part WHERE request_id IS NOT NULL"), "what was being asked"
    )


def _come_back(site: Site, told: Told) -> None:
    killed_at, stood_at = time.monotonic(), site.done()
    site.start()
    eventually(lambda: site.done() > stood_at, "the job to go on by itself", seconds=60)
    told.recoveries.append(time.monotonic() - killed_at)


def _compare(page: Page, sandbox: WatchedSandbox, given: List, told: Told) -> None:
    with page.expect_download() as begun:
        page.get_by_role("link", name="Download result").click()
    content = Path(begun.value.path()).read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    found = csv.reader(io.StringIO(content.decode("utf-8-sig")))
    head = next(found)
    assert head[:7] == ["line", "mobile", "code", "status", "range_holder", "current_operator", "area"]
    rows = list(found)
    assert len(rows) == len(given.cells)
    for line, (cell, row) in enumerate(zip(given.cells, rows, strict=True), start=2):
        if cell in BAD:
            shown = f"'{cell}" if cell.startswith("=") else cell
            expected = [str(line), shown, "1", "bad_row", "", "", ""]
        else:
            truth = sandbox.truth(cell)
            code = _CODES.get(truth.status, "0")
            place = [truth.range_holder or "", truth.current_operator or "", truth.area or ""]
            expected = [str(line), cell, code, truth.status.value, *(place if code == "0" else ["", "", ""])]
        told.wrong += row[:7] != expected
    assert not told.wrong


def _explained(page: Page, given: List) -> None:
    """Each kind of bad row, in the table on the page."""
    table = page.locator("table").inner_text()
    for cell in given.cells[49:350:50]:
        assert cell in table
        assert BAD[cell] in table


def _account_for(site: Site, sandbox: WatchedSandbox, given: List, told: Told) -> None:
    """Each number was charged once, each bill is known."""
    found = sum(sandbox.truth(number).code == 0 for number in given.numbers)
    single = int(sandbox.truth(given.numbers[0]).code == 0)
    eventually(lambda: not site.rows("SELECT FROM account_hold"), "no reservation to be left", seconds=120)
    ((balance, moved, charged),) = site.rows(
        "SELECT a.balance, sum(m.amount), -sum(m.amount) FILTER (WHERE m.kind = 'charge')"
        " FROM account a JOIN account_movement m ON m.account_id = a.id GROUP BY 1"
    )
    told.charged = int(charged)
    assert balance == moved
    assert told.charged == found + single, "each number once, and the one that was looked up alone"
    listed = {
        str(number)
        for (number,) in site.rows("SELECT unnest(unanswered) FROM lookup_call WHERE outcome = 'lost'")
    }
    again = {number for number, times in sandbox.bills().items() if times > 1}
    again.discard(given.numbers[0])  # asked alone, too
    told.billed = sum(sandbox.bills().values())
    told.billed_again_listed = len(again & listed)
    told.billed_again_unlisted = len(again - listed)
    assert not again - listed
