"""One request to a site: who asks, in which language, and what can be answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from markupsafe import Markup
from sqlalchemy import Connection
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from worker.storage import engine, web_sessions
from worker.storage.web_sessions import WebSession
from worker.web import sessions
from worker.web.throttle import Attempt
from worker.web.wording import TAGS, Wording

if TYPE_CHECKING:
    from worker.web.site import Site

T = TypeVar("T")


class Refused(HTTPException):
    """The request is not answered but with an error page: 403, 404, 413, 429 and so on."""

    def __init__(self, status: int, *, retry_after_seconds: float | None = None) -> None:
        wait = None if retry_after_seconds is None else max(1, round(retry_after_seconds))
        super().__init__(status, headers=None if wait is None else {"retry-after": str(wait)})
        self.wait_seconds = wait


class Visit:
    """One request. ``principal`` is what the site's ``principal`` returned, None for a stranger."""

    def __init__(self, site: Site, request: Request, say: Wording) -> None:
        self.site = site
        self.request = request
        self.say = say
        self.session: WebSession | None = None
        self.principal: Any = None
        self.fields = FormData()
        self.secure = site.secure(request.scope)
        self._new_cookie: str | None = None

    @property
    def address(self) -> str:
        """The client's address, as the proxy in front tells it if the site stands behind one."""
        return self.site.address_of(self.request)

    @property
    def by_htmx(self) -> bool:
        """Whether a part of a page is asked for."""
        return self.request.headers.get("hx-request") == "true"

    def query(self, name: str, default: str = "") -> str:
        """Return a parameter of the address, the characters that no text of ours holds replaced."""
        return _clean(self.request.query_params.get(name, default))

    def form(self, name: str, default: str = "") -> str:
        """Return a field of the form; what is a file or not there is ``default``."""
        found = self.fields.get(name)
        return _clean(found) if isinstance(found, str) else default

    def forms(self, name: str) -> list[str]:
        """Return every field of that name."""
        return [_clean(each) for each in self.fields.getlist(name) if isinstance(each, str)]

    def file(self, name: str) -> UploadFile | None:
        """Return an uploaded file; it is gone once the request is answered."""
        found = self.fields.get(name)
        return found if isinstance(found, UploadFile) else None

    def read(self, query: Callable[[Connection], T]) -> T:
        """Run single statements."""
        return engine.read(self.site.database, query)

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run one transaction."""
        return engine.transact(self.site.database, work)

    def to(self, path: str, **query: object) -> str:
        """Return the address of a page of this site, wherever it is mounted."""
        given = {name: value for name, value in query.items() if value not in {None, ""}}
        return str(self.request.scope.get("root_path", "")) + path + (f"?{urlencode(given)}" if given else "")

    def render(
        self, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
    ) -> Response:
        """Return a page."""
        content = self.site.templates.get_template(template).render(
            visit=self,
            say=self.say,
            to=self.to,
            asset=lambda name: self.to(self.site.assets.link(name)),
            form_token=self.form_token,
            language_tag=TAGS[self.say.language],
            **values,
        )
        return self._with_cookie(HTMLResponse(content, status, headers))

    def redirect(self, path: str, *, notice: str | None = None, **values: object) -> Response:
        """Send the browser to another page (303), which says ``notice``, a text's key, once."""
        if notice is not None and self.session is not None:
            said = json.dumps({"key": notice, "values": {name: str(value) for name, value in values.items()}})
            self.read(partial(web_sessions.leave_notice, session=self.session, notice=said))
        return self._with_cookie(RedirectResponse(self.to(path), 303))

    def take_notice(self) -> str | None:
        """Return what the page before wanted said, once."""
        if self.session is None or self.session.notice is None:
            return None
        said = json.loads(self.session.notice)
        self.read(partial(web_sessions.leave_notice, session=self.session, notice=None))
        return self.say(str(said["key"]), **said["values"])

    def form_token(self) -> Markup:
        """Return the hidden field that each form must carry."""
        cookie = self.cookie or self._new_cookie
        if cookie is None:
            cookie = self._new_cookie = sessions.new_token()
        field = Markup('<input type="hidden" name="{}" value="{}">')
        return field.format(sessions.FORM_FIELD, sessions.form_token(cookie))

    @property
    def cookie(self) -> str | None:
        """The cookie to which the forms of this visitor's pages are bound; None where there is none yet."""
        cookies = self.site.cookies
        return (cookies.visitor if self.session is None else cookies.session)(
            self.request, secure=self.secure
        )

    @property
    def own_path(self) -> str:
        """This page's own path below the site's, with its query; the first page where this is no page."""
        if self.request.method != "GET" or self.by_htmx:
            return "/"
        path = str(self.request.scope["path"]).removeprefix(self.request.scope.get("root_path", ""))
        query = self.request.scope.get("query_string", b"").decode("ascii", "ignore")
        return f"{path}?{query}" if query else path

    def next_path(self) -> str:
        """Return where to go after the log-in: a page of this site, the first one if none was named."""
        path = self.form("next") or self.query("next")
        is_ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
        return path if is_ours else "/"

    @contextmanager
    def attempt(self, subject: str) -> Iterator[Attempt]:
        """Count an attempt to log in; ``Refused`` (429) where they come too often."""
        attempt = Attempt(self.site.database, self.site.kind, subject, self.address)
        wait = attempt.count(self.site.throttle)
        if wait:
            raise Refused(429, retry_after_seconds=wait)
        yield attempt

    def log_in(self, subject: str) -> Response:
        """Begin a session under a new token, and send the browser to the page it wanted."""
        token = sessions.new_token()

        def begin(connection: Connection) -> None:
            if self.session is not None:
                web_sessions.end(connection, self.session)
            lifetime = self.site.expiry.absolute
            web_sessions.add(connection, token, site=self.site.kind, subject=subject, lifetime=lifetime)

        self.transact(begin)
        response = RedirectResponse(self.to(self.next_path()), 303)
        self.site.cookies.set_session(response, token, secure=self.secure)
        return response

    def log_out(self, path: str | None = None) -> Response:
        """End the session, here and in the database."""
        if self.session is not None:
            self.read(partial(web_sessions.end, session=self.session))
        response = RedirectResponse(self.to(path or self.site.log_in_path), 303)
        self.site.cookies.end_session(response, secure=self.secure)
        response.headers["clear-site-data"] = '"cache"'
        return response

    def _with_cookie(self, response: Response) -> Response:
        if self._new_cookie is not None:
            self.site.cookies.set_visitor(response, self._new_cookie, secure=self.secure)
        return response


def _clean(text: str) -> str:
    """Postgres' text holds no NUL, and UTF-8 no half of a pair: a replacement character stands for each."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
