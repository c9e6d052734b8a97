"""Who did what, when and why: every action of operators, commands and presend itself."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from starlette.responses import Response

from worker.storage import operator_actions
from worker.web.moments import read_moment, written_moment
from worker.web.visit import Visit

_PAGE = 50
_SUBJECTS = (
    "gate of account",
    "gate of every account",
    "lane",
    "dead letters",
    "dead letter",
    "a mobile number",
    "number",
    "operator",
    "an unknown name",
    "account",
)
"""What subjects begin with; the rest is a name."""
_REASONS = {
    "from": re.compile(r"from (?P<address>\S+)"),
    "role": re.compile(r"role (?P<role>view|act)"),
    "by_hand": re.compile(r"by hand"),
    "new_one": re.compile(r"a new one was set"),
    "arguments": re.compile(r"its arguments, unmasked"),
    "story": re.compile(r"its story, unmasked"),
    "none_given": re.compile(r"none given"),
}
"""Reasons that presend wrote by itself, by the keys of their texts; any other one is a person's words."""


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
        actions=[(one, *_subject(one.subject), _reason(visit, one.reason)) for one in shown],
        who=who,
        action=action,
        known=visit.read(operator_actions.kinds),
        older=older,
        is_first=not visit.query("before"),
    )


def _subject(subject: str) -> tuple[str, str]:
    """What an action was done to: its kind, empty where it is none of ours, and its name."""
    for kind in _SUBJECTS:
        if subject == kind or subject.startswith(f"{kind} "):
            return kind.replace(" ", "_"), subject[len(kind) + 1 :]
    return "", subject


def _reason(visit: Visit, reason: str) -> str:
    """Why it was done, in the visitor's language as far as the words are presend's."""
    for key, pattern in _REASONS.items():
        if (found := pattern.fullmatch(reason)) is not None:
            values: dict[str, Any] = found.groupdict()
            if "role" in values:
                values["role"] = visit.say(f"role.{values['role']}")
            return visit.say(f"own_reason.{key}", **values)
    return reason
