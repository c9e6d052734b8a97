"""Logging in with name and password, and out."""

from __future__ import annotations

from functools import partial

from starlette.responses import Response

from worker.console import passwords
from worker.storage import operator_actions, operators
from worker.web.visit import Visit

_LONGEST = 200


def page(visit: Visit) -> Response:
    """Show the form; who is logged in already goes on."""
    if visit.principal is not None:
        return visit.redirect(visit.next_path())
    return visit.render("log_in.html", wrong=False, name="")


def log_in(visit: Visit) -> Response:
    """Begin a session; a wrong name and a wrong password are told alike."""
    name, password = visit.form("name").strip()[:_LONGEST], visit.form("password")[:_LONGEST]
    with visit.attempt(subject=name) as attempt:
        stored = visit.read(partial(operators.password_hash, name=name))
        if not passwords.right(password, stored):
            visit.transact(partial(operators.log_in_refused, name=name, address=visit.address))
            return visit.render("log_in.html", status=403, wrong=True, name="")
        attempt.succeeded()
    visit.transact(partial(operators.logged_in, name=name, address=visit.address))
    return visit.log_in(subject=name)


def log_out(visit: Visit) -> Response:
    """End the session."""
    name = visit.principal.name
    visit.transact(
        partial(
            operator_actions.add, who=name, action="log_out", subject=f"operator {name}", reason="by hand"
        )
    )
    return visit.log_out()
