"""Texts in every language: one TOML file a language and folder, a table a subject, ``{name}`` for values.

A text that counts is a table of ``one`` and ``other`` (Chinese has ``other`` alone).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LANGUAGES = {"zh": "中文", "en": "English"}
"""By their codes, each named in itself. The first is for who accepts neither."""

TAGS = {"zh": "zh-CN", "en": "en"}
"""How HTML names them."""


class Wording:
    """The texts of one language."""

    def __init__(self, language: str, texts: Mapping[str, Any]) -> None:
        self.language = language
        self._texts = texts

    def __call__(self, key: str, /, *, count: int | None = None, **values: object) -> str:
        """Return a text; one that is not there is its key, which no test lets pass."""
        text = self._texts.get(key)
        if count is not None:
            one = self._texts.get(f"{key}.one")
            text = one if one is not None and count == 1 else self._texts.get(f"{key}.other", text)
            values["count"] = f"{count:,}"
        return key if text is None else text.format_map(values) if values else text

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def named(self, prefix: str, name: object) -> str:
        """Return the text of a word out of a table, such as a decision; an unknown word is itself."""
        key = f"{prefix}.{name}"
        return self._texts.get(key, str(name)) if name is not None else ""


def load(folders: Sequence[Path]) -> dict[str, Wording]:
    """Read the texts of some folders; a later one's stand before an earlier one's."""
    return {
        language: Wording(
            language, {key: text for folder in folders for key, text in texts(folder, language)}
        )
        for language in LANGUAGES
    }


def texts(folder: Path, language: str) -> Iterator[tuple[str, str]]:
    """Yield the keys and texts of one folder's file."""
    yield from _flat("", tomllib.loads((folder / f"{language}.toml").read_text(encoding="utf-8")))


def chosen(kept: str | None, accept: str) -> str:
    """Return the language to speak: the one chosen before, else the best of ``Accept-Language``."""
    if kept in LANGUAGES:
        return str(kept)
    best = max(
        ((weight, -place, code) for place, (code, weight) in enumerate(_accepted(accept)) if weight > 0),
        default=None,
    )
    return next(iter(LANGUAGES)) if best is None else best[2]


def _accepted(header: str) -> Iterator[tuple[str, float]]:
    for part in header[:500].split(","):
        tag, _, weight = part.strip().partition(";q=")
        code = tag.strip().lower().partition("-")[0]
        if code in LANGUAGES:
            try:
                yield code, float(weight or 1)
            except ValueError:
                continue


def _flat(prefix: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value
