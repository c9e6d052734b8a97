"""Every text of the web sites is there in both languages, with the same values; every text used exists."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from string import Formatter

import pytest

from worker.web import wording

WORKER = Path(wording.__file__).parents[1]
SITES = sorted(folder.parent for folder in WORKER.glob("**/texts") if folder.is_dir())
SHARED = WORKER / "web"
_USED = re.compile(r"""\bsay(?:\.named)?\(\s*['"]([a-z0-9_.]+)['"]\s*[,)]""")
_NOTICE = re.compile(r"""\bnotice=['"]([a-z0-9_.]+)['"]|MenuItem\([^,]+, ['"]([a-z0-9_.]+)['"]\)""")


def _texts(site: Path, language: str) -> dict[str, str]:
    return dict(wording.texts(site / "texts", language))


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_both_languages_say_the_same_things(site: Path) -> None:
    chinese, english = _texts(site, "zh"), _texts(site, "en")
    # Chinese counts without a singular
    assert set(chinese) == {key for key in english if not key.endswith(".one")}
    for key, text in chinese.items():
        assert text.strip()
        assert english[key].strip()
        assert _values(text) == _values(english[key]), key


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_every_text_that_is_used_exists(site: Path) -> None:
    known = _texts(site, "en") | _texts(SHARED, "en")
    tables = {key.rpartition(".")[0] for key in known}
    for file in [*site.rglob("*.html"), *site.rglob("[!_]*.py")]:  # __init__ shows examples
        source = file.read_text(encoding="utf-8")
        used = {
            key for match in (*_USED.finditer(source), *_NOTICE.finditer(source)) for key in match.groups()
        }
        missing = {key for key in used if key and key not in known and key not in tables}
        assert not missing, f"{file.name}: {missing}"


def test_the_language_is_the_browsers_best_and_the_chosen_one_stands_before_it() -> None:
    assert wording.chosen(None, "fr, en-GB;q=0.8, zh;q=0.9") == "zh"
    assert wording.chosen(None, "en-US,en;q=0.9") == "en"
    assert wording.chosen(None, "fr") == "zh"
    assert wording.chosen("en", "zh") == "en"
    assert wording.chosen("../etc", "en;q=x, zh;q=0") == "zh"


def test_vendored_files_are_the_published_ones() -> None:
    vendor = SHARED / "vendor"
    sums = dict(
        reversed(line.split()) for line in (vendor / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    )
    found = {file.name: sha256(file.read_bytes()).hexdigest() for file in vendor.iterdir()}
    assert found.pop("SHA256SUMS")
    assert found == sums
    assert {"htmx.LICENSE", "uPlot.LICENSE"} <= set(sums)


def _values(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}
