"""Draws docs/benchmarks/*.svg from the records beside them: ``python -m tests.benchmarks.drawing``."""

from __future__ import annotations

import json
import sys
from html import escape
from typing import Any

from tests.faults.outcome import ROOT

_RECORDS = ROOT / "docs" / "benchmarks"
_DRAWN = ("drain", "drain-quorum", "drain-redis", "drain-latency")
_WIDTH, _LABEL, _FIGURE = 900, 280, 90
_ROW, _BAR, _TOP, _BOTTOM = 28, 16, 46, 34
_OURS, _THEIRS = "#0f766e", "#94a3b8"
_HEADING = "Numbers a second, median of the runs; the line goes from the slowest to the fastest"
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
    return 0


def _drain(record: dict[str, Any]) -> str:
    """Bars of the median rates, each with a line from the slowest to the fastest run."""
    found = record["figures"]["contestants"]
    longest = max(run["rate"] for who in found.values() for run in who["runs"])
    scale = (_WIDTH - _LABEL - _FIGURE) / longest
    height = _TOP + _ROW * len(found) + _BOTTOM
    bars = [_bar(name, who, _TOP + place * _ROW, scale) for place, (name, who) in enumerate(found.items())]
    services = ", ".join(f"{name} {version}" for name, version in record["services"].items())
    about = f"{record['measured']}, {record['machine']}, {services}, {record['commit']}, {record['command']}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
            f"<title>{escape(record['command'])}</title><style>{_STYLE}</style>",
            f'<text x="0" y="20">{_HEADING}</text>',
            *bars,
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
