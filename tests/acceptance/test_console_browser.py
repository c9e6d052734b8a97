"""The console in a real browser, beside a real worker: what an operator does, step by step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually
from tests.browser import DESKTOP, PHONE, chromium, headers_beside_their_columns, policy_breaches
from tests.commands import command
from worker.console import passwords
from worker.storage import dead_letters, engine, operators
from worker.storage.dead_letters import DeadLetter
from worker.storage.ids import new_id
from worker.web import wording

TEXTS = Path(passwords.__file__).parent / "texts"
PASSWORD = "correct horse battery staple"
PAGES = ("/", "/gate", "/lanes/sms", "/calls", "/events", "/dead", "/explain", "/trail")
_SOON = 15_000
"""Milliseconds; the page looks every two seconds."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def test_an_operators_shift(on_redis: Place, browser: Browser) -> None:
    here = on_redis
    worker = here.worker("recharge", "sms")
    database = engine.connect(here.database_url, connections=1)
    hashed = passwords.hashed(PASSWORD)
    engine.transact(
        database,
        lambda to: operators.add(to, "mei", password_hash=hashed, role=operators.Role.ACT, by="test"),
    )
    url = _console(here)
    page = browser.new_page(locale="en-GB", viewport=DESKTOP)  # type: ignore[arg-type]
    page.set_default_timeout(_SOON)
    breaches = policy_breaches(page)

    page.goto(f"{url}/lanes/sms")
    _log_in(page, "wrong")
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    _log_in(page, PASSWORD)
    expect(page).to_have_url(f"{url}/lanes/sms")  # where it wanted to go

    page.goto(url)
    sms = page.locator("#lane-sms")
    expect(sms.locator("[data-figure=workers]")).to_have_text("1")
    expect(sms).to_contain_text("running")
    expect(page.locator("#chart canvas")).to_have_count(1)
    expect(page.locator("#chart .u-value").last).to_have_text("0")  # without pointing at it

    page.get_by_role("link", name="Close the gate…").click()
    page.get_by_label("Reason").fill("prices change at noon")
    page.get_by_role("button", name="Close the gate").click()
    expect(page.get_by_role("status")).to_contain_text("closed")
    assert here.rows("SELECT closed_by, reason FROM gate") == [
        {"closed_by": "mei", "reason": "prices change at noon"}
    ]
    worker.wait_for("prices change at noon")
    page.goto(url)
    expect(page.get_by_role("alert")).to_contain_text("prices change at noon")
    expect(sms).to_contain_text("gate closed")
    page.get_by_role("link", name="Open the gate…").click()
    page.get_by_label("Reason").fill("the new prices are in")
    page.get_by_role("button", name="Open the gate").click()
    expect(page.get_by_role("status")).to_contain_text("open")
    assert here.count("gate") == 0
    worker.wait_for("lane_goes_on")  # a stop that follows at once would be no news to it

    page.goto(url)
    sms.get_by_role("link", name="Pause").click()
    page.get_by_label("Reason").fill("the gateway sends rubbish")
    page.get_by_role("button", name="Pause").click()
    worker.wait_for("the gateway sends rubbish")
    here.send_many("sms", plain_numbers(3))
    page.goto(url)
    # nobody reloads the page: it looks by itself
    expect(sms.locator("[data-figure=waiting]")).to_have_text("3")
    expect(sms).to_contain_text("the gateway sends rubbish")
    assert here.count("check_request") == 0
    sms.get_by_role("link", name="Resume").click()
    page.get_by_label("Reason").fill("mended")
    page.get_by_role("button", name="Resume").click()
    here.decided(3)

    _park(here, plain_numbers(10)[5:])
    page.goto(f"{url}/dead")
    page.get_by_role("button", name="Price a replay…").click()
    expect(page.locator(".figures")).to_contain_text("Look-ups at most")
    page.get_by_label("Buy at most so many numbers").fill("2")
    page.get_by_label("Reason").fill("the provider is well")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_text("3 letters stay")).to_be_visible()
    here.decided(5)
    assert here.rows("SELECT count(*) AS n FROM dead_letter WHERE replayed_at IS NULL") == [{"n": 3}]

    page.goto(f"{url}/explain")
    page.get_by_label("Mobile number").fill(plain_numbers(1)[0])
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("ol.line li")).to_have_count(1)
    assert page.url == f"{url}/explain"

    page.goto(f"{url}/trail")
    for words in ("prices change at noon", "the gateway sends rubbish", "mended", "2 of 5 letters sent"):
        expect(page.locator("table")).to_contain_text(words)
    _check_every_page(page, url)
    page.goto(url)
    page.get_by_role("button", name="退出登录").click()
    page.goto(f"{url}/trail")
    expect(page).to_have_url(re.compile("/log-in"))
    assert breaches == []
    page.close()
    database.dispose()
    eventually(lambda: not here.unfinished(), "the end of everything")
    here.stop()


def _console(here: Place) -> str:
    process = here.run("console", command("console", "--port", "0"))
    process.wait_for("presend console listens on ")
    found = re.search(r"listens on (http://\S+)", process.log)
    assert found
    return found[1]


def _log_in(page: Page, password: str) -> None:
    page.get_by_label("Name").fill("mei")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def _park(here: Place, numbers: list[str]) -> None:
    letters = [
        DeadLetter(
            new_id(),
            "sms.recheck",
            {"message_id": f"L{number}", "mobile": number, "operator": "CMCC"},
            "never answered",
            "sms",
            datetime.now(UTC),
        )
        for number in numbers
    ]
    database = engine.connect(here.database_url, connections=1)
    engine.transact(database, lambda to: dead_letters.add(to, letters))
    database.dispose()


def _check_every_page(page: Page, url: str) -> None:
    """Each fits a phone, has its texts, and says them in Chinese once that is chosen."""
    page.get_by_role("button", name="中文").click()
    for path in PAGES:
        page.goto(url + path)
        assert headers_beside_their_columns(page) == [], path
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    tables = {key.partition(".")[0] for key, _ in wording.texts(TEXTS, "en")}
    for path in PAGES:
        page.goto(url + path)
        assert page.evaluate("document.documentElement.lang") == "zh-CN"
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        expect(page.locator(".who")).to_be_visible()
        for entry in page.locator(".menu a").all():
            expect(entry).to_be_in_viewport(ratio=1)
        shown = set(re.findall(r"\b([a-z_]+)\.[a-z_]+\b", page.inner_text("body")))
        assert not (shown & tables) - {"recharge", "sms"}, path
