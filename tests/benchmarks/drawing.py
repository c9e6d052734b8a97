"""Draws docs/benchmarks/*.svg from the records beside them: ``python -m tests.benchmarks.drawing``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from html import escape
from typing import Any

from tests.faults.outcome import ROOT

_RECORDS = ROOT / "docs" / "benchmarks"
_DRAWN = ("drain", "drain-quorum", "drain-redis", "drain-latency")
_WIDTH, _LABEL, _FIGURE = 920, 300, 90
_ROW, _BAR, _TOP, _BOTTOM = 28, 16, 46, 34
_OURS, _THEIRS = "#0f766e", "#94a3b8"
_HEADING = "Numbers a second, median of the runs; the line goes from the slowest to the fastest"
_CURVES = {"quiet": _THEIRS, "behind a backlog": _OURS}
_SHOWN_MS, _COLUMN_MS, _PANEL = 300, 4, 150
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#0f172a}.small{font-size:11px;fill:#475569}"
    "@media(prefers-color-scheme:dark){text{fill:#e2e8f0}.small{fill:#94a3b8}}"
)


def main() -> int:
    """Draw what there are records of."""
    for name in _DRAWN:
        record = _RECORDS / f"{name.replace('-', '_')}.json"
        if record.exists():
            record.with_suffix(".svg").write_text(_drain(json.loads(record.read_text("utf-8"))), "utf-8")
            sys.stdout.write(f"{record.with_suffix('.svg').relative_to(ROOT)}\n")
    record = _RECORDS / "backlog_precheck.json"
    if record.exists():
        record.with_suffix(".svg").write_text(_waits(json.loads(record.read_text("utf-8"))), "utf-8")
        sys.stdout.write(f"{record.with_suffix('.svg').relative_to(ROOT)}\n")
    return 0


def _waits(record: dict[str, Any]) -> str:
    """A histogram of prechecks' waits for each condition, one below the other, on one scale of time."""
    panels = [
        _panel(name, record["figures"][name]["precheck"], colour, _TOP + place * (_PANEL + 40))
        for place, (name, colour) in enumerate(_CURVES.items())
    ]
    height = _TOP + len(panels) * (_PANEL + 40) + _BOTTOM
    heading = f"Prechecks by their wait in ms, {_COLUMN_MS} ms a column; the last holds all longer ones"
    return _picture(record, heading, [part for panel in panels for part in panel], height)


def _panel(name: str, found: dict[str, Any], colour: str, top: float) -> list[str]:
    columns: Counter[int] = Counter()
    for lower, number in found["histogram"].items():
        columns[min(int(lower), _SHOWN_MS) // _COLUMN_MS] += number
    wide, high = _WIDTH / (_SHOWN_MS // _COLUMN_MS + 1), (_PANEL - 30) / max(columns.values())
    foot = top + _PANEL
    bars = [
        f'<rect x="{column * wide:.1f}" y="{foot - number * high:.1f}" width="{wide - 1:.1f}" '
        f'height="{number * high:.1f}" fill="{colour}"/>'
        for column, number in sorted(columns.items())
    ]
    ticks = [
        f'<text class="small" x="{at // _COLUMN_MS * wide:.1f}" y="{foot + 14:.0f}">{at}</text>'
        for at in range(0, _SHOWN_MS, 20)
    ]
    said = f"{name}: {found['count']} prechecks, p50 {found['p50']:.0f} ms, p99 {found['p99']:.0f} ms"
    return [f'<text x="0" y="{top + 14:.0f}">{escape(said)}</text>', *bars, *ticks]


def _drain(record: dict[str, Any]) -> str:
    """Bars of the median rates, each with a line from the slowest to the fastest run."""
    found = record["figures"]["contestants"]
    longest = max(run["rate"] for who in found.values() for run in who["runs"])
    scale = (_WIDTH - _LABEL - _FIGURE) / longest
    height = _TOP + _ROW * len(found) + _BOTTOM
    bars = [_bar(name, who, _TOP + place * _ROW, scale) for place, (name, who) in enumerate(found.items())]
    return _picture(record, _HEADING, bars, height)


def _picture(record: dict[str, Any], heading: str, parts: Iterable[str], height: float) -> str:
    services = ", ".join(f"{name} {version}" for name, version in record["services"].items())
    about = f"{record['measured']}, {record['machine']}, {services}, {record['commit']}, {record['command']}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
            f"<title>{escape(record['command'])}</title><style>{_STYLE}</style>",
            f'<text x="0" y="20">{heading}</text>',
            *parts,
            f'<text class="small" x="0" y="{height - 10}">{escape(about)}</text>',
            "</svg>",
            "",
        ]
    )


def _bar(name: str, who: dict[str, Any], y: float, scale: float) -> str:
    rates = [run["rate"] for run in who["runs"]]
    low, high, middle = _LABEL + min(rates) * scale, _LABEL + max(rates) * scale, y + _BAR / 2
    colour = _OURS if who["kind"] == "presend" else _THEIRS
    bar = f'x="{_LABEL}" y="{y}" width="{who["rate"] * scale:.1f}" height="{_BAR}" rx="2" fill="{colour}"'
    line = f'x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#f59e0b" stroke-width="2"'
    words = f'y="{middle + 4:.0f}"'
    return (
        f'<text x="{_LABEL - 10}" {words} text-anchor="end">{escape(name)}</text>'
        f"<rect {bar}/><line {line}/>"
        f'<text x="{high + 8:.1f}" {words}>{who["rate"]:,.0f}</text>'
    )


if __name__ == "__main__":
    sys.exit(main())
