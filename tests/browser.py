"""A headless Chromium that is already on this machine; nothing is downloaded.

``PRESEND_TEST_BROWSER`` names its program. Without one its tests are skipped, and fail where ``CI=true``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def program() -> str | None:
    """Where the browser is."""
    named = os.environ.get("PRESEND_TEST_BROWSER")
    return named or next((path for name in _PROGRAMS if (path := shutil.which(name))), None)


def version() -> str:
    """Its version."""
    done = subprocess.run([program() or "", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser until the block ends."""
    path = program()
    if path is None:
        told = "no Chromium on the path: install it, or name its program in PRESEND_TEST_BROWSER"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def enter_key(page: Page, key: str) -> None:
    """Log in to the query page by the keyboard alone, once its field has the focus."""
    page.wait_for_selector("#key:focus")
    page.keyboard.type(key)
    page.keyboard.press("Enter")


def headers_beside_their_columns(page: Page) -> list[str]:
    """The header cells whose left edge is not that of each cell below them."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("table:has(thead)")].flatMap((table) => {
            const left = (row) => [...row.cells].map((cell) => Math.round(cell.getBoundingClientRect().left));
            const over = left(table.tHead.rows[0]);
            return [...table.tHead.rows[0].cells].filter((_, at) =>
                [...table.tBodies[0].rows].some((row) => Math.abs(left(row)[at] - over[at]) > 1)
            ).map((cell) => cell.innerText);
        })"""
    )
    return found


def policy_breaches(page: Page) -> list[str]:
    """A list that fills with what the content security policy forbids a page, and its scripts' errors."""
    found: list[str] = []

    def note(message: Any) -> None:
        if message.type == "error" and "Content Security Policy" in message.text:
            found.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found
