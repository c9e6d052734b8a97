"""Each page of the query page in a browser: it fits a phone, obeys its policy, and every field has a name."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.provider import WatchedSandbox
from tests.browser import DESKTOP, PHONE, chromium, enter_key, policy_breaches
from tests.front_door import Front, front_door
from worker.sandbox.serving import serving

LIST = "姓名,手机\n" + "".join(f"a,{13972560000 + n}\n" for n in range(20)) + "b,1397256\nc,=1+1\n"
_NAMELESS = """
    [...document.querySelectorAll("input:not([type=hidden]), textarea, select, button, a[href], progress")]
        .filter(each => !(each.labels && each.labels.length) && !each.ariaLabel && each.ariaHidden !== "true"
            && !each.textContent.trim())
        .map(each => each.outerHTML)
"""
_TABLE_CUT_OFF = "[...document.querySelectorAll('.table')].some(each => each.scrollWidth > each.clientWidth)"
_CELLS_BEGIN_AT = "[...document.querySelectorAll('{}')].map(each => each.getBoundingClientRect().left)"
_WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def front(database_url: str) -> Iterator[Front]:
    with serving(WatchedSandbox()) as provider_url, front_door(database_url, provider_url) as opened:
        yield opened


@pytest.mark.parametrize(("language", "finished"), [("zh-CN", "已完成"), ("en-US", "Finished")])
def test_every_page_fits_and_names_its_fields(
    browser: Browser, front: Front, language: str, finished: str
) -> None:
    key = front.account(balance=1000)
    page = browser.new_page(locale=language, viewport=PHONE)
    breaches = policy_breaches(page)

    def look(what: str) -> None:
        assert page.locator("h1").count() == 1, what
        assert page.evaluate("document.documentElement.lang") == language.replace("en-US", "en")
        assert page.evaluate(_NAMELESS) == [], what
        for size in (DESKTOP, PHONE):
            page.set_viewport_size(size)
            assert page.evaluate(_WIDER) <= 0, f"{what} is wider than {size['width']}"

    page.goto(front.url)
    look("the log-in")
    enter_key(page, "x" * 32)
    page.wait_for_selector("[role=alert]")
    look("a wrong key")
    enter_key(page, key)
    page.wait_for_selector("#mobile")
    look("the first page")
    page.fill("#mobile", "13972565391")
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer .pairs")
    expect(page.locator("#balance")).to_have_text(re.compile(r"^\s*999"))
    look("an answer")
    file = {"name": "a-list-with-a-name-of-more-than-forty-characters.csv", "mimeType": "text/csv"}
    page.set_input_files("#list", {**file, "buffer": LIST.encode()})  # type: ignore[arg-type]
    page.click(".list-form button.primary")
    page.wait_for_selector(f".badge:has-text('{finished}')")
    look("a list")
    for path in ("/jobs", "/account", "/nothing"):
        page.goto(front.url + path)
        look(path)
    page.goto(f"{front.url}/account")
    assert not page.evaluate(_TABLE_CUT_OFF), "a statement's row is whole on a phone"
    page.set_viewport_size(DESKTOP)
    assert page.evaluate(_CELLS_BEGIN_AT.format("th")) == page.evaluate(
        _CELLS_BEGIN_AT.format("tbody tr:first-child td")
    )
    page.goto(front.url)
    page.evaluate("document.querySelector('.list-form').dataset.mostBytes = 10")
    page.set_input_files("#list", {**file, "buffer": LIST.encode()})  # type: ignore[arg-type]
    page.click(".list-form button.primary")
    expect(page.locator(".list-form [role=alert]")).to_contain_text("64 MB")
    assert not breaches
    page.close()


@pytest.mark.parametrize(("language", "told"), [("zh-CN", "未选择文件"), ("en-US", "No file chosen")])
def test_a_chosen_file_is_told_in_the_pages_language(
    browser: Browser, front: Front, language: str, told: str
) -> None:
    page = browser.new_page(locale=language)
    page.goto(front.url)
    enter_key(page, front.account())
    expect(page.locator(".chosen")).to_contain_text(told)
    page.set_input_files("#list", {"name": "a.csv", "mimeType": "text/csv", "buffer": b"1"})
    expect(page.locator(".chosen")).to_contain_text("a.csv")
    page.close()


def test_a_page_says_so_while_the_server_does_not_answer(browser: Browser, front: Front) -> None:
    page = browser.new_page(locale="en-US")
    page.goto(front.url)
    enter_key(page, front.account(balance=0))
    page.fill("#numbers", "13972565391")
    page.click(".list-form button.primary")
    page.wait_for_selector("#progress")
    assert page.locator("#stale").is_hidden()
    for outage in (lambda route: route.abort(), lambda route: route.fulfill(status=503)):
        page.route("**/progress", outage)
        page.wait_for_selector("#stale:has-text('No contact with the server')", timeout=10_000)
        page.unroute("**/progress")
        page.wait_for_selector("#stale", state="hidden", timeout=10_000)
    page.close()
