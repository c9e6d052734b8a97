"""The site: its pages, what they work with, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from worker.serve.page import entering
from worker.serve.page.listing import Lists
from worker.serve.page.looking_up import LookUps
from worker.serve.page.statement import Statements
from worker.storage import accounts
from worker.storage.accounts import QUERY_SITE, Account
from worker.web.site import MenuItem, Site

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from starlette.types import ASGIApp

    from worker.serve.front_door import FrontDoor
    from worker.serve.jobs.runner import JobRunner

_MENU = (
    MenuItem("/", "menu.look_up"),
    MenuItem("/jobs", "menu.lists"),
    MenuItem("/account", "menu.account"),
)


@dataclass(frozen=True)
class Access:
    """How browsers reach the page."""

    # the address it listens on
    host: str = "127.0.0.1"
    # addresses under which a proxy shows it, as https://query.example.com
    public_urls: Sequence[str] = field(default_factory=tuple)
    # believe X-Forwarded-For
    behind_proxy: bool = False


def query_page(
    database: Engine, door: FrontDoor, runner: JobRunner, *, timezone: str, access: Access
) -> ASGIApp:
    """Return the page as an application, for the event loop of ``door``."""
    site = Site(
        kind=QUERY_SITE,
        folder=Path(__file__).parent,
        database=database,
        principal=_account_now,
        timezone=timezone,
        menu=_MENU,
        host=access.host,
        public_urls=access.public_urls,
        behind_proxy=access.behind_proxy,
    )
    return site.app(
        [
            *entering.routes(site),
            *LookUps(site, door).routes(),
            *Lists(site, runner).routes(),
            *Statements(site).routes(),
        ]
    )


def _account_now(connection: Connection, account_id: str) -> Account | None:
    """Whose a session is; one that is disabled is logged out."""
    account = accounts.of_id(connection, account_id)
    return None if account is None or account.disabled else account
