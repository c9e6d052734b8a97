"""An HTTP client of a web site in this process: no port, no thread, cookies as a browser keeps them."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx

_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]+)"')


class WebClient(httpx.Client):
    """A browser without scripts: redirects are not followed, and it speaks English."""

    def __init__(self, app: Any, base_url: str, *, address: str = "192.0.2.1") -> None:
        super().__init__(
            transport=_InProcess(app, address), base_url=base_url, headers={"Accept-Language": "en"}
        )

    def submit(self, path: str, *, page: str = "/", **fields: str) -> httpx.Response:
        """Send the form of a page of its own: with its token, and as browsers send it."""
        fields = {"form_token": form_token(self.get(page).text)} | fields
        return self.post(path, data=fields, headers={"Origin": str(self.base_url).rstrip("/")})


def form_token(page: str) -> str:
    """The token in a page's first form."""
    found = _TOKEN.search(page)
    assert found, page[:2000]
    return found[1]


class _InProcess(httpx.BaseTransport):
    def __init__(self, app: Any, address: str) -> None:
        self._asgi = httpx.ASGITransport(app, client=(address, 50000))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = await self._asgi.handle_async_request(request)
        content = await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)
