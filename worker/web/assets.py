"""Stylesheets and scripts: read once, served from memory under names that change with their content.

Only what was in a site's folders when it started is served, so no path leads anywhere else.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from starlette.responses import Response

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png"}
_FOR_EVER = "public, max-age=31536000, immutable"
PATH = "/assets"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served."""

    content: bytes
    media_type: str
    # the beginning of its content's SHA-256
    version: str


class Assets:
    """The files of some folders, by their names; a later folder's stand before an earlier one's."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files = {
            file.name: _read(file)
            for folder in folders
            if folder.is_dir()
            for file in sorted(folder.iterdir())
            if file.suffix in _TYPES
        }

    def link(self, name: str) -> str:
        """Return the path of a file, below the site's own; KeyError where there is none of that name."""
        return f"{PATH}/{name}?v={self._files[name].version}"

    def serve(self, name: str, *, version: str | None) -> Response | None:
        """Return a file, to be kept for ever if asked for by its version; None where there is none."""
        file = self._files.get(name)
        if file is None:
            return None
        kept = _FOR_EVER if version == file.version else "no-cache"
        return Response(file.content, media_type=file.media_type, headers={"cache-control": kept})


def _read(file: Path) -> Asset:
    content = file.read_bytes()
    media_type = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return Asset(content, media_type, sha256(content).hexdigest()[:16])
