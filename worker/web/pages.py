"""The templates' environment: what every page of every site can use."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup, escape

from worker.portability.msisdn import mask_all


def environment(folders: Sequence[Path], *, timezone: str) -> Environment:
    """Return an environment over some folders of templates; a later one's stand before an earlier one's.

    The first folder's are also under ``shared/``, so that a site's ``base.html`` can extend the shared one.

    Everything put into a page is escaped, and a name that nobody gave fails the page.
    """
    made = Environment(
        loader=ChoiceLoader(
            [
                FileSystemLoader([str(folder) for folder in reversed(folders)]),
                PrefixLoader({"shared": FileSystemLoader(str(folders[0]))}),
            ]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    zone = ZoneInfo(timezone)
    made.filters["moment"] = lambda at, form="%Y-%m-%d %H:%M:%S": moment(at, zone, form)
    made.filters["number"] = number
    made.filters["masked"] = lambda text: mask_all(str(text))
    return made


def moment(at: datetime | None, zone: ZoneInfo, form: str) -> str | Markup:
    """Return a moment in the site's zone, with the exact one in UTC beside it for whoever points at it."""
    if at is None:
        return "–"
    exact = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(
        exact, at.astimezone(zone).strftime(form)
    )


def number(value: float | None, digits: int = 0) -> str | Markup:
    """Return a number with its thousands parted; None is a dash."""
    return "–" if value is None else escape(f"{value:,.{digits}f}" if digits else f"{round(value):,}")
