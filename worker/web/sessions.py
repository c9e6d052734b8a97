"""The cookie of a session, and the token that each form of it carries.

The cookie holds 256 random bits; the database holds their hash. It is out of reach for scripts, goes with no
request that another site causes, and over https is bound to the host (``__Host-``). A form's token is derived
from the cookie: a site that cannot read the one cannot make the other. Who is not logged in has a cookie of
the same kind that means nothing but that.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

FORM_FIELD, FORM_HEADER = "form_token", "presend-form-token"
_YEAR_SECONDS = 365 * 86400
LANGUAGE_COOKIE = "presend_language"


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a session ends by itself."""

    # after it was last used
    idle: timedelta = timedelta(minutes=30)
    # after its beginning, used or not
    absolute: timedelta = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Cookies:
    """A site's cookies, named apart from those of other sites at the same host."""

    kind: str

    def session(self, request: Request, *, secure: bool) -> str | None:
        """Return the session's token, if there is one."""
        return request.cookies.get(self._name("session", secure))

    def visitor(self, request: Request, *, secure: bool) -> str | None:
        """Return the token of somebody who is not logged in."""
        return request.cookies.get(self._name("visitor", secure))

    def set_session(self, response: Response, token: str, *, secure: bool) -> None:
        """Have the browser keep a session's token until it is closed."""
        self._set(response, self._name("session", secure), token, secure=secure)

    def set_visitor(self, response: Response, token: str, *, secure: bool) -> None:
        """Have the browser keep a visitor's token until it is closed."""
        self._set(response, self._name("visitor", secure), token, secure=secure)

    def end_session(self, response: Response, *, secure: bool) -> None:
        """Have the browser forget it."""
        response.delete_cookie(
            self._name("session", secure), path="/", secure=secure, httponly=True, samesite="strict"
        )

    def _name(self, what: str, secure: bool) -> str:
        return f"{'__Host-' if secure else ''}presend_{self.kind}_{what}"

    def _set(self, response: Response, name: str, token: str, *, secure: bool) -> None:
        response.set_cookie(name, token, path="/", secure=secure, httponly=True, samesite="strict")


def set_language(response: Response, language: str, *, secure: bool) -> None:
    """Have the browser keep the language for a year, for every site of presend's."""
    response.set_cookie(
        LANGUAGE_COOKIE,
        language,
        max_age=_YEAR_SECONDS,
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )


def new_token() -> str:
    """Return 256 random bits, as a cookie's value."""
    return secrets.token_urlsafe(32)


def form_token(cookie: str) -> str:
    """Return the token that the forms of a cookie's pages carry."""
    return hmac.new(cookie.encode("utf-8", "replace"), b"presend form", "sha256").hexdigest()


def right_form_token(cookie: str | None, token: str) -> bool:
    """Whether a form came from a page of this cookie's."""
    return cookie is not None and hmac.compare_digest(
        form_token(cookie).encode(), token.encode("utf-8", "replace")
    )
