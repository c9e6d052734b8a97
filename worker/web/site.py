"""A site: its routes, what each of them lets pass, and its error pages."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread
from jinja2 import Environment
from sqlalchemy import Connection, Engine
from starlette.applications import Starlette
from starlette.datastructures import FormData, Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker import logs
from worker.errors import StorageUnavailable
from worker.storage import engine, web_sessions
from worker.storage.web_sessions import WebSession
from worker.web import assets, cross_site, pages, sessions, wording
from worker.web.assets import Assets
from worker.web.headers import SecurityHeaders
from worker.web.sessions import Cookies, Expiry
from worker.web.throttle import Throttle
from worker.web.visit import Refused, Visit

log = logs.get(__name__)

HERE = Path(__file__).parent
MAX_BODY_BYTES = 64 * 1024
_MOST_FIELDS = 2000
_EXPLAINED = {400, 403, 404, 405, 413, 429, 503}
"""Statuses with a text of their own; any other error page says 500's."""

Endpoint = Callable[[Visit], Response | Awaitable[Response]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MenuItem:
    """A page in the menu."""

    path: str
    # its name's text
    key: str


@dataclass(frozen=True)
class Site:
    """What all pages of a site share; see the package's docstring."""

    kind: str
    folder: Path
    database: Engine
    # who a session's subject is now; None ends the session
    principal: Callable[[Connection, str], Any]
    timezone: str
    menu: Sequence[MenuItem] = ()
    # addresses under which a proxy shows the site, as https://console.example.com
    public_urls: Sequence[str] = ()
    # the address it listens on
    host: str = "127.0.0.1"
    # believe the last X-Forwarded-For: only where a proxy that sets it is the one way in
    behind_proxy: bool = False
    expiry: Expiry = field(default_factory=Expiry)
    throttle: Throttle = field(default_factory=Throttle)
    log_in_path: str = "/log-in"
    # requests that are worked on at once; more wait
    threads: int = 16
    _limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.CapacityLimiter] = field(
        default_factory=WeakKeyDictionary
    )

    @cached_property
    def cookies(self) -> Cookies:
        """The names of its cookies."""
        return Cookies(self.kind)

    @cached_property
    def templates(self) -> Environment:
        """Its templates, over the shared ones."""
        return pages.environment([HERE / "templates", self.folder / "templates"], timezone=self.timezone)

    @cached_property
    def assets(self) -> Assets:
        """Its stylesheets and scripts, over the shared ones."""
        return Assets([HERE / "vendor", HERE / "static", self.folder / "static"])

    @cached_property
    def wordings(self) -> dict[str, wording.Wording]:
        """Its texts by language, over the shared ones."""
        return wording.load([HERE / "texts", self.folder / "texts"])

    @cached_property
    def _hosts(self) -> frozenset[str]:
        return cross_site.known_hosts(self.host, self.public_urls)

    @cached_property
    def _https_hosts(self) -> frozenset[str]:
        split = (urlsplit(url) for url in self.public_urls)
        return frozenset(url.netloc.lower() for url in split if url.scheme == "https")

    def page(
        self,
        path: str,
        endpoint: Endpoint,
        *,
        public: bool = False,
        polled: bool = False,
        allow: Callable[[Any], bool] | None = None,
    ) -> Route:
        """Return the route of something to look at, which changes nothing.

        ``public``: for strangers too. ``polled``: asked again and again by a page, so no sign that somebody
        is there. ``allow``: whether the principal may see it; 403 otherwise.
        """
        gate = _Gate(self, endpoint, public=public, polled=polled, allow=allow)
        return Route(path, gate, methods=["GET"], name=path)

    def action(
        self,
        path: str,
        endpoint: Endpoint,
        *,
        public: bool = False,
        allow: Callable[[Any], bool] | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> Route:
        """Return the route of a form that changes something: POST, from our own pages alone."""
        gate = _Gate(self, endpoint, public=public, allow=allow, max_body_bytes=max_body_bytes)
        return Route(path, gate, methods=["POST"], name=f"POST {path}")

    def app(self, routes: Sequence[BaseRoute], *, for_any_host: Collection[str] = ()) -> ASGIApp:
        """Return the site as an application: these routes, the assets, the choice of language.

        ``for_any_host``: paths that are answered whatever host is named, for probes.
        """
        app = Starlette(
            routes=[
                *routes,
                Route(f"{assets.PATH}/{{name}}", self._asset, methods=["GET"]),
                self.action("/language", _choose_language, public=True),
            ],
            exception_handlers={HTTPException: self._refused, Exception: self._failed},
        )
        app.router.redirect_slashes = False
        return SecurityHeaders(_OurHosts(app, self._hosts, frozenset(for_any_host)))

    def secure(self, scope: Scope) -> bool:
        """Whether a request came over https, to us or to the proxy in front of us."""
        return (
            scope.get("scheme") == "https"
            or Headers(scope=scope).get("host", "").lower() in self._https_hosts
        )

    def address_of(self, request: Request) -> str:
        """Return the client's address."""
        forwarded = request.headers.get("x-forwarded-for", "") if self.behind_proxy else ""
        return forwarded.rpartition(",")[2].strip() or (request.client.host if request.client else "")

    def visit(self, request: Request) -> Visit:
        """Return a stranger's visit, in the language that the browser asks for."""
        kept = request.cookies.get(sessions.LANGUAGE_COOKIE)
        language = wording.chosen(kept, request.headers.get("accept-language", ""))
        return Visit(self, request, self.wordings[language])

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run what waits for the database on a thread."""
        loop = asyncio.get_running_loop()  # a limiter belongs to the loop that runs
        if loop not in self._limiters:
            self._limiters[loop] = anyio.CapacityLimiter(self.threads)
        return await anyio.to_thread.run_sync(work, limiter=self._limiters[loop])

    def who(self, token: str | None, *, polled: bool) -> tuple[WebSession, Any] | None:
        """Return the session of a token and whose it is; None for a stranger."""
        if token is None:
            return None

        def find(connection: Connection) -> tuple[WebSession, Any] | None:
            session = web_sessions.find(connection, token, site=self.kind, idle=self.expiry.idle)
            if session is None:
                return None
            principal = self.principal(connection, session.subject)
            if principal is None:
                web_sessions.end(connection, session)
                return None
            if not polled:
                web_sessions.seen(connection, session)
            return session, principal

        return engine.read(self.database, find)

    def error_page(self, visit: Visit, exc: HTTPException) -> Response:
        """Return what a refused request is told."""
        kind = exc.status_code if exc.status_code in _EXPLAINED else 500
        wait = exc.wait_seconds if isinstance(exc, Refused) else None
        return visit.render("error.html", status=exc.status_code, headers=exc.headers, kind=kind, wait=wait)

    async def _asset(self, request: Request) -> Response:
        found = self.assets.serve(request.path_params["name"], version=request.query_params.get("v"))
        if found is None:
            raise Refused(404)
        return found

    async def _refused(self, request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        return self.error_page(self.visit(request), exc)

    async def _failed(self, request: Request, _exc: Exception) -> Response:
        return self.error_page(self.visit(request), HTTPException(500))


@dataclass(frozen=True)
class _Gate:
    """Stands before an endpoint: origin, session, form token and right are looked at, in this order."""

    site: Site
    endpoint: Endpoint
    public: bool = False
    polled: bool = False
    allow: Callable[[Any], bool] | None = None
    max_body_bytes: int = MAX_BODY_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, self._bounded(receive), send)
        response = await self._answer(request)
        await response(scope, receive, send)

    def _bounded(self, receive: Receive) -> Receive:
        """A body may be so long; whoever reads on past that raises the refusal."""
        left = self.max_body_bytes

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise Refused(413)
            return message

        return bounded

    async def _answer(self, request: Request) -> Response:
        site = self.site
        visit = site.visit(request)
        try:
            await self._recognise(visit)
            if visit.principal is None and not self.public:
                return self._stranger(visit)
            await self._let_in(visit)
            return await self._answered(visit)
        except HTTPException as exc:
            return site.error_page(visit, exc)
        except StorageUnavailable as exc:
            log.warning("page_unavailable", site=site.kind, error=str(exc))
            return site.error_page(visit, Refused(503, retry_after_seconds=5))
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            log.exception("page_failed", site=site.kind, path=request.scope["path"])
            return site.error_page(visit, HTTPException(500))
        finally:
            await visit.fields.close()

    async def _recognise(self, visit: Visit) -> None:
        request = visit.request
        if self._unsafe(request) and not cross_site.may_change_something(request.headers):
            raise Refused(403)
        token = self.site.cookies.session(request, secure=visit.secure)
        found = await self.site.in_thread(partial(self.site.who, token, polled=self.polled))
        if found is not None:
            visit.session, visit.principal = found

    async def _let_in(self, visit: Visit) -> None:
        if self._unsafe(visit.request):
            length = visit.request.headers.get("content-length", "")
            if length.isdigit() and int(length) > self.max_body_bytes:
                raise Refused(413)
            visit.fields = await self._fields(visit.request)
            given = visit.request.headers.get(sessions.FORM_HEADER) or visit.form(sessions.FORM_FIELD)
            if not sessions.right_form_token(visit.cookie, given):
                raise Refused(403)
        if self.allow is not None and not self.allow(visit.principal):
            raise Refused(403)

    async def _answered(self, visit: Visit) -> Response:
        if inspect.iscoroutinefunction(self.endpoint):
            response: Response = await self.endpoint(visit)
            return response
        answered: Any = await self.site.in_thread(partial(self.endpoint, visit))
        assert isinstance(answered, Response)
        return answered

    def _unsafe(self, request: Request) -> bool:
        return request.method not in cross_site.SAFE_METHODS

    def _stranger(self, visit: Visit) -> Response:
        """Who is not logged in is sent to the log-in; a part of a page has its page sent there."""
        wanted = visit.own_path
        log_in = visit.to(self.site.log_in_path, next=None if wanted == "/" else wanted)
        if visit.by_htmx:
            return Response(status_code=401, headers={"hx-redirect": log_in})
        return RedirectResponse(log_in, 303)

    async def _fields(self, request: Request) -> FormData:
        try:
            return await request.form(max_files=4, max_fields=_MOST_FIELDS, max_part_size=self.max_body_bytes)
        except (MultiPartException, ValueError):
            raise Refused(400) from None


@dataclass(frozen=True)
class _OurHosts:
    """Answers requests that name one of our hosts."""

    app: ASGIApp
    hosts: frozenset[str]
    for_any_host: frozenset[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else ""
        asked_for = scope["type"] != "http" or cross_site.host_name(host) in self.hosts
        if not asked_for and scope["path"] not in self.for_any_host:
            told = (
                "This site does not answer under this name: start it with --public-url to give it the name.\n"
            )
            await PlainTextResponse(told, 421)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _choose_language(visit: Visit) -> Response:
    language = visit.form("language")
    response = visit.redirect(visit.next_path())
    if language in wording.LANGUAGES:
        sessions.set_language(response, language, secure=visit.secure)
    return response
