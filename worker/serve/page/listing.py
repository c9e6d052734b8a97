"""Lists of numbers: given as a file or pasted, worked on as jobs, and their results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote
from uuid import UUID
from zoneinfo import ZoneInfo

from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from worker import logs
from worker.errors import ListRefused
from worker.serve.jobs import lists, results
from worker.serve.jobs.lists import MOST_BYTES, NumberList
from worker.serve.jobs.runner import JobRunner
from worker.storage import accounts, jobs
from worker.storage.jobs import Job
from worker.web.site import Site
from worker.web.visit import Refused, Visit

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logs.get(__name__)

_FORM_BYTES = 64 * 1024
"""What a form has besides its file."""
_A_PAGE = 20
_ERRORS_A_PAGE = 50
_RECENT = 5


class Lists:
    """The pages of an account's jobs."""

    def __init__(self, site: Site, runner: JobRunner) -> None:
        self._site = site
        self._runner = runner
        self._zone = ZoneInfo(site.timezone)
        # a list of a million numbers takes 150 MB while it is read
        self._reading = asyncio.Lock()

    def routes(self) -> list[Route]:
        """All of them."""
        site, job = self._site, "/jobs/{id:uuid}"
        return [
            site.page("/jobs", self._page),
            site.action("/list", self._create, max_body_bytes=MOST_BYTES + _FORM_BYTES),
            site.page(job, self._job),
            site.page(f"{job}/progress", self._progress, polled=True),
            site.page(f"{job}/result.csv", self._result),
            site.action(f"{job}/pause", self._changing(jobs.pause, "job.notice.paused")),
            site.action(f"{job}/resume", self._changing(jobs.resume, "job.notice.resumed")),
            site.action(f"{job}/cancel", self._changing(jobs.cancel, "job.notice.cancelled")),
            site.action(f"{job}/delete", self._delete),
        ]

    def _page(self, visit: Visit) -> Response:
        before = visit.query("before")
        found = visit.read(
            partial(
                jobs.newest,
                account_id=visit.principal.id,
                most=_A_PAGE + 1,
                before=before if _is_id(before) else None,
            )
        )
        more = found[_A_PAGE - 1].id if len(found) > _A_PAGE else None
        return visit.render("jobs.html", jobs=found[:_A_PAGE], more=more, older=bool(before), refused=None)

    async def _create(self, visit: Visit) -> Response:
        try:
            job_id = await self._stored(visit, *_given(visit))
        except ListRefused as exc:
            values: dict[str, Any] = {name: _counted(value) for name, value in exc.values.items()}
            told = visit.say(f"refused.{exc.code}", **values)
            return await self._site.in_thread(partial(self._refused, visit, told))
        self._runner.look()
        return visit.redirect(f"/jobs/{job_id}")

    async def _stored(self, visit: Visit, name: str, stream: BinaryIO) -> str:
        account_id, column = visit.principal.id, visit.form("column")

        def store(connection: Connection) -> str:
            stream.seek(0)
            given = NumberList(stream, column=column)
            return jobs.create(connection, account_id, name[:120], given.column, given.pieces())

        await self._site.in_thread(lambda: visit.transact(partial(jobs.require_room, account_id=account_id)))
        async with self._reading:
            job_id = await self._site.in_thread(lambda: visit.transact(store))
        log.info("job_created", job=job_id, account=account_id)
        return job_id

    def _refused(self, visit: Visit, told: str) -> Response:
        account = visit.read(partial(accounts.of_id, account_id=visit.principal.id))
        recent = visit.read(partial(jobs.newest, account_id=visit.principal.id, most=_RECENT))
        return visit.render(
            "home.html",
            status=422,
            shown=None,
            account=account,
            recent=recent,
            refused=told,
            most_bytes=MOST_BYTES,
        )

    def _job(self, visit: Visit) -> Response:
        job = self._of(visit)
        after = visit.query("after")
        errors = visit.read(
            partial(
                jobs.errors,
                job_id=job.id,
                after=int(after) if after.isascii() and after.isdigit() and len(after) < 10 else 0,
                most=_ERRORS_A_PAGE + 1,
            )
        )
        more = errors[_ERRORS_A_PAGE - 1].line if len(errors) > _ERRORS_A_PAGE else None
        return visit.render("job.html", job=job, errors=errors[:_ERRORS_A_PAGE], more=more)

    def _progress(self, visit: Visit) -> Response:
        """The part of the job's page that changes; the whole page anew once the job has ended."""
        job = self._of(visit)
        headers = {"hx-refresh": "true"} if job.state.ended else None
        return visit.render("_progress.html", job=job, headers=headers)

    def _result(self, visit: Visit) -> Response:
        job = self._of(visit)
        name = quote(f"{job.name.rpartition('.')[0] or job.name}-presend.csv", safe="")
        return StreamingResponse(
            results.csv_of(self._site.database, job.id, visit.say, self._zone),
            media_type="text/csv; charset=utf-8",
            headers={
                "content-disposition": f"attachment; filename=presend.csv; filename*=UTF-8''{name}",
            },
        )

    def _changing(
        self, how: Callable[[Connection, str, str], bool], notice: str
    ) -> Callable[[Visit], Response]:
        def change(visit: Visit) -> Response:
            job = self._of(visit)
            changed = visit.transact(lambda to: how(to, visit.principal.id, job.id))
            self._runner.look()
            return visit.redirect(f"/jobs/{job.id}", notice=notice if changed else "job.notice.unchanged")

        return change

    def _delete(self, visit: Visit) -> Response:
        job = self._of(visit)
        if not visit.transact(partial(jobs.delete, account_id=visit.principal.id, job_id=job.id)):
            return visit.redirect(f"/jobs/{job.id}", notice="job.notice.unchanged")
        return visit.redirect("/jobs", notice="job.notice.deleted")

    def _of(self, visit: Visit) -> Job:
        job_id = str(visit.request.path_params["id"])
        job = visit.read(partial(jobs.one, account_id=visit.principal.id, job_id=job_id))
        if job is None:
            raise Refused(404)
        return job


def _given(visit: Visit) -> tuple[str, BinaryIO]:
    """What was uploaded, or pasted, and its name."""
    file, pasted = visit.file("list"), visit.form("numbers")
    if file is not None and file.filename:
        if pasted.strip():
            raise ListRefused("file_and_pasted")
        return file.filename, file.file
    if pasted.strip():
        return visit.say("lists.pasted"), lists.of_pasted(pasted)
    raise ListRefused("nothing_given")


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _counted(value: object) -> object:
    return f"{value:,}" if isinstance(value, int) else value
