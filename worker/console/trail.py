"""Who did what, when and why: every action of operators, commands and presend itself."""

from __future__ import annotations

from functools import partial

from starlette.responses import Response

from worker.storage import operator_actions
from worker.web.moments import read_moment, written_moment
from worker.web.visit import Visit

_PAGE = 50


def page(visit: Visit) -> Response:
    """Show the newest actions, or those before a moment; of one person or one action where asked."""
    who, action = visit.query("who").strip(), visit.query("action")
    found = visit.read(
        partial(
            operator_actions.latest,
            most=_PAGE + 1,
            who=who or None,
            action=action or None,
            before=read_moment(visit.query("before")),
        )
    )
    shown, more = found[:_PAGE], len(found) > _PAGE
    older = visit.to("/trail", who=who, action=action, before=written_moment(shown[-1].at)) if more else None
    return visit.render(
        "trail.html",
        actions=shown,
        who=who,
        action=action,
        known=visit.read(operator_actions.kinds),
        older=older,
        is_first=not visit.query("before"),
    )
