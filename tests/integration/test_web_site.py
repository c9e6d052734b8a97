"""The web sites' foundation, by a small site with one page, one form and one log-in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.responses import Response

from tests.web_client import WebClient, form_token
from worker.storage import engine, web_sessions
from worker.storage.log_in_attempts import Allowance
from worker.web.sessions import Expiry
from worker.web.site import MenuItem, Site
from worker.web.throttle import Throttle
from worker.web.visit import Visit

HOST = "http://127.0.0.1:8600"
OURS = {"Origin": HOST}


def _home(visit: Visit) -> Response:
    return visit.render("home.html", told=visit.query("told"), file=None)


def _log_in_page(visit: Visit) -> Response:
    return visit.render("home.html", told="", file=None)


def _log_in(visit: Visit) -> Response:
    with visit.attempt(visit.form("name")) as attempt:
        if visit.form("password") != "right":
            return visit.render("home.html", status=403, told="wrong", file=None)
        attempt.succeeded()
    return visit.log_in(visit.form("name"))


async def _upload(visit: Visit) -> Response:
    file = visit.file("list")
    assert file is not None
    return visit.render("home.html", told=visit.form("note"), file=(await file.read()).decode())


def _fail(_visit: Visit) -> Response:
    raise ValueError("a defect")


def _say(visit: Visit) -> Response:
    return visit.redirect("/", notice="site.said", what=visit.form("what"))


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[Site]:
    for name in ("templates", "texts", "static"):
        (tmp_path / name).mkdir()
    (tmp_path / "templates" / "home.html").write_text(
        '{% extends "base.html" %}{% block title %}home{% endblock %}{% block main %}'
        "<p>[{{ told }}] [{{ file }}]</p><form method='post'>{{ form_token() }}</form>{% endblock %}"
    )
    (tmp_path / "texts" / "en.toml").write_text('[site]\nsaid = "said {what}"\nhome = "Home"\n')
    (tmp_path / "texts" / "zh.toml").write_text('[site]\nsaid = "说了 {what}"\nhome = "首页"\n')
    database = engine.connect(database_url, connections=2)
    yield Site(
        kind="try",
        folder=tmp_path,
        database=database,
        principal=lambda _connection, subject: None if subject == "gone" else subject,
        timezone="Asia/Shanghai",
        menu=[MenuItem("/", "site.home")],
        public_urls=["https://try.example.com"],
        expiry=Expiry(idle=timedelta(seconds=60), absolute=timedelta(hours=1)),
        throttle=Throttle(Allowance(3, 60), Allowance(6, 60), first_wait_seconds=30),
    )
    database.dispose()


def _client(site: Site, base_url: str = HOST) -> WebClient:
    app = site.app(
        [
            site.page("/", _home),
            site.page("/log-in", _log_in_page, public=True),
            site.action("/log-in", _log_in, public=True),
            site.action("/log-out", lambda visit: visit.log_out()),
            site.action("/upload", _upload, max_body_bytes=2000),
            site.action("/say", _say),
            site.page("/fail", _fail),
            site.page("/chiefs", _home, allow=lambda principal: principal == "chief"),
        ]
    )
    return WebClient(app, base_url)


def _logged_in(client: WebClient, name: str = "mei") -> str:
    """Log in; return a form token of the session's."""
    assert client.submit("/log-in", page="/log-in", name=name, password="right").status_code == 303
    return form_token(client.get("/").text)


def test_a_stranger_is_sent_to_the_log_in_and_back(site: Site) -> None:
    client = _client(site)
    sent = client.get("/?told=a%26b")
    assert (sent.status_code, sent.headers["location"]) == (303, "/log-in?next=%2F%3Ftold%3Da%2526b")
    token = form_token(client.get("/log-in").text)
    fields = {"name": "mei", "password": "right", "form_token": token, "next": "/?told=a%26b"}
    back = client.post("/log-in", data=fields, headers=OURS)
    assert back.headers["location"] == "/?told=a%26b"
    cookie = back.headers["set-cookie"]
    assert cookie.startswith("presend_try_session=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "[a&amp;b]" in client.get("/?told=a%26b").text
    # the database holds no token
    with site.database.connect() as connection:
        stored = connection.execute(text("SELECT token_hash FROM web_session")).scalar_one()
    assert stored not in cookie
    for elsewhere in ("//evil.example", "https://evil.example", "/\\evil.example"):
        fresh = _client(site)
        fields = {"name": "mei", "password": "right", "next": elsewhere}
        fields["form_token"] = form_token(fresh.get("/log-in").text)
        assert fresh.post("/log-in", data=fields, headers=OURS).headers["location"] == "/"


def test_over_https_the_cookie_is_bound_to_the_host(site: Site) -> None:
    client = _client(site, "https://try.example.com")
    _logged_in(client)
    assert {name for name in client.cookies if "session" in name} == {"__Host-presend_try_session"}
    answer = client.get("/")
    assert "strict-transport-security" not in answer.headers, "http may be served beside it, on the same host"


def test_posts_of_other_sites_are_refused(site: Site) -> None:
    client = _client(site)
    token = _logged_in(client)
    fields = {"what": "hello", "form_token": token}
    refused = [
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        OURS | {"Sec-Fetch-Site": "cross-site"},
        OURS | {"Sec-Fetch-Site": "same-site"},
    ]
    for headers in refused:
        assert client.post("/say", data=fields, headers=headers).status_code == 403, headers
    assert client.post("/say", data={"what": "hello"}, headers=OURS).status_code == 403
    other = _logged_in(_client(site), "otto")
    assert client.post("/say", data=fields | {"form_token": other}, headers=OURS).status_code == 403
    assert client.get("/say").status_code == 405
    assert client.post("/say", data=fields, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
    assert "said hello" in client.get("/").text
    assert "said hello" not in client.get("/").text


def test_a_session_ends_idle_in_time_by_revocation_and_with_its_subject(site: Site) -> None:
    client = _client(site)

    def shifted(column: str, seconds: int) -> int:
        with site.database.begin() as connection:
            connection.execute(
                text(f"UPDATE web_session SET {column} = {column} - interval '{seconds} seconds'")
            )
        return client.get("/").status_code

    _logged_in(client)
    assert shifted("seen_at", 50) == 200  # and seen again
    assert shifted("seen_at", 50) == 200
    assert shifted("seen_at", 61) == 303
    _logged_in(client)
    assert shifted("ends_at", 3601) == 303
    _logged_in(client)
    assert engine.transact(site.database, lambda to: web_sessions.revoke(to, site="try", subject="mei"))
    assert client.get("/").status_code == 303
    token = _logged_in(client)
    cookie = client.cookies["presend_try_session"]
    assert client.post("/log-out", data={"form_token": token}, headers=OURS).status_code == 303
    client.cookies.set("presend_try_session", cookie)
    assert client.get("/").status_code == 303


def test_a_log_in_takes_no_token_that_was_there_before(site: Site) -> None:
    client = _client(site)
    client.cookies.set("presend_try_session", "planted", domain="127.0.0.1")
    _logged_in(client)
    assert "planted" not in [cookie.value for cookie in client.cookies.jar]
    engine.transact(
        site.database,
        lambda to: web_sessions.add(to, "t", site="try", subject="gone", lifetime=timedelta(hours=1)),
    )
    client.cookies.clear()
    client.cookies.set("presend_try_session", "t")
    assert client.get("/").status_code == 303


def test_attempts_that_come_too_often_wait(site: Site) -> None:
    def attempt(name: str, password: str) -> int:
        answer = _client(site).submit("/log-in", page="/log-in", name=name, password=password)
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["retry-after"]) <= 30
        return answer.status_code

    assert [attempt("mei", "wrong") for _ in range(3)] == [403, 403, 403]
    assert attempt("mei", "right") == 429
    assert attempt("otto", "right") == 303
    assert [attempt(f"name{n}", "wrong") for n in range(2)] == [403, 403]
    assert attempt("otto", "right") == 429  # six of this address have failed in a row


def test_bodies_have_a_limit_and_files_arrive(site: Site) -> None:
    client = _client(site)
    token = _logged_in(client)
    fields = {"form_token": token, "note": "a\x00b"}
    answer = client.post("/upload", data=fields, files={"list": ("a.csv", b"x,y")}, headers=OURS)
    assert "[a\ufffdb] [x,y]" in answer.text
    answer = client.post("/upload", data=fields, files={"list": ("a.csv", b"x" * 3000)}, headers=OURS)
    assert answer.status_code == 413
    broken = OURS | {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/upload", content=b"--x\r\nnonsense", headers=broken).status_code in {400, 403}


def test_every_answer_has_the_headers_and_errors_speak_the_language(site: Site) -> None:
    client = _client(site)
    _logged_in(client)
    missing = client.get("/nothing", headers={"Accept-Language": "zh-CN"})
    assert (missing.status_code, "页面不存在" in missing.text) == (404, True)
    failed = client.get("/fail")
    assert (failed.status_code, "Something went wrong" in failed.text) == (500, True)
    assert client.get("/chiefs").status_code == 403
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
    for answer in (missing, failed, client.get("/"), client.get("/log-in"), client.get("/assets/base.css")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
    assert client.get("/").headers["cache-control"] == "no-store"


def test_the_language_is_kept_and_assets_are_for_ever(site: Site) -> None:
    client = _client(site)
    token = _logged_in(client)
    fields = {"form_token": token, "language": "zh", "next": "/?told=x"}
    assert client.post("/language", data=fields, headers=OURS).headers["location"] == "/?told=x"
    page = client.get("/").text
    assert 'lang="zh-CN"' in page
    link = re.search(r'href="(/assets/base\.css\?v=[0-9a-f]+)"', page)
    assert link
    assert "immutable" in client.get(link[1]).headers["cache-control"]
    for path in (
        "/assets/..%2fsite.py",
        "/assets/../site.py",
        "/assets/SHA256SUMS",
        "/assets/%2e%2e/en.toml",
    ):
        assert client.get(path).status_code == 404
