"""The whole examination, in the order in which things have to be mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from worker.doctor import broker, machine, postgres, provider, redis
from worker.doctor.finding import Finding, fail
from worker.masking import masked

if TYPE_CHECKING:
    from worker.config import Settings

Examination = Callable[["Settings"], Iterator[Finding]]

_ALL: tuple[tuple[str, Examination], ...] = (
    ("machine", machine.examine),
    ("PostgreSQL", postgres.examine),
    ("broker", broker.examine),
    ("Redis", redis.examine),
    ("provider", provider.examine),
)

_AGAIN = "mend it, and run this again"


def examine(settings: Settings, *, told: Callable[[Exception], str]) -> Iterator[Finding]:
    """Yield what is found, as it is found; ``told`` puts an error into words that say what to do."""
    for subject, examination in _ALL:
        findings = examination(settings)
        while True:
            try:
                yield next(findings)
            except StopIteration:
                break
            except Exception as exc:  # noqa: BLE001 - whatever it is: it is told, and the rest is looked at
                words, full_stop, todo = masked(told(exc)).rpartition(". ")
                yield fail(subject, words, todo) if full_stop else fail(subject, todo, _AGAIN)
                break
