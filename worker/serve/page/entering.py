"""The log-in, by the account's key.

Only the key's hash is looked up, by an index: a wrong key costs what a right one costs. The key is in the
body of one POST and in nothing else: no page shows it again, no table and no log holds it.
"""

from __future__ import annotations

from functools import partial

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from worker.storage import accounts
from worker.web.site import Site
from worker.web.visit import Visit


def routes(site: Site) -> list[Route]:
    """The pages of who comes and goes."""
    return [
        site.page("/log-in", _page, public=True),
        site.action("/log-in", _log_in, public=True),
        site.action("/log-out", lambda visit: visit.log_out()),
    ]


def _page(visit: Visit) -> Response:
    if visit.principal is not None:
        return RedirectResponse(visit.to(visit.next_path()), 303)
    return visit.render("log_in.html", wrong=None, next=visit.query("next"))


def _log_in(visit: Visit) -> Response:
    key = visit.form("key").strip()
    with visit.attempt(accounts.key_hash(key)) as attempt:
        account = visit.read(partial(accounts.of_key, key=key))
        if account is None or account.disabled:
            wrong = "log_in.wrong" if account is None else "log_in.disabled"
            return visit.render("log_in.html", status=403, wrong=wrong, next=visit.form("next"))
        attempt.succeeded()
    return visit.log_in(account.id)
