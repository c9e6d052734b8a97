"""Attempts on the console's security: each must fail as said, and none may leave anything changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, text

from tests import services
from tests.operators_console import HOST, PASSWORD, Watched, operators_console
from tests.web_client import WebClient, form_token
from worker.portability.requests import Lane
from worker.storage import dead_letters, engine, operator_actions, outbox, web_sessions
from worker.storage.dead_letters import DeadLetter
from worker.storage.statements import run

LETTER = "0198c5a2-6f1e-7c3d-9a55-0c1b6f6d2a55"
BATCH = "0198c5a2-6f1e-7c3d-9a55-0c1b6f6d2a56"
SCRIPT = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(1)>"
NUMBER = "13972565391"
OURS = {"Origin": HOST}
PAGES = ("/", "/now", "/rates.json", "/gate", "/lanes/sms", "/calls", f"/batches/{BATCH}", "/events", "/dead")
PAGES += (f"/dead/{LETTER}", "/explain", "/trail")
ACTIONS: dict[str, dict[str, str]] = {
    "/gate/close": {"reason": "x"},
    "/gate/open": {"reason": "x", "provider": "yes"},
    "/lanes/sms/pause": {"reason": "x"},
    "/lanes/sms/resume": {"reason": "x"},
    "/dead/price": {},
    "/dead/replay": {"cap": "10", "why": "x"},
    f"/dead/{LETTER}": {},
    "/explain": {"mobile": NUMBER, "unmasked": "yes"},
}
"""What only the role ``act`` may do, with fields that would do it."""


@dataclass(frozen=True)
class Attempt:
    """A request that must be answered with one of these statuses."""

    name: str
    path: str
    statuses: tuple[int, ...]
    method: str = "GET"
    who: str | None = "mei"
    headers: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    # the token that goes with the fields: that of a page of one's own, or another
    token: str | None = "own"
    # what else must hold of the answer
    then: Callable[[httpx.Response], bool] = lambda _answer: True


def _to_log_in(answer: httpx.Response) -> bool:
    return answer.headers["location"].startswith("/log-in")


def _escaped(payload: str) -> Callable[[httpx.Response], bool]:
    return lambda answer: payload not in answer.text and payload.replace("<", "&lt;")[:7] in answer.text


def _strict(answer: httpx.Response) -> bool:
    policy = answer.headers["content-security-policy"]
    return (
        all(
            part in policy
            for part in (
                "default-src 'none'",
                "script-src 'self';",
                "style-src 'self';",
                "frame-ancestors 'none'",
            )
        )
        and "unsafe" not in policy
        and "*" not in policy
        and answer.headers["x-content-type-options"] == "nosniff"
        and answer.headers["x-frame-options"] == "DENY"
        and answer.headers["referrer-policy"] == "same-origin"
        and "camera=()" in answer.headers["permissions-policy"]
        and answer.headers["cross-origin-opener-policy"] == "same-origin"
        and "server" not in answer.headers
    )


def _close(name: str, statuses: tuple[int, ...] = (403,), **options: Any) -> Attempt:
    """Closing the gate, as mei may, but not so."""
    return Attempt(name, "/gate/close", statuses, "POST", fields={"reason": "x"}, **options)


ATTEMPTS = [
    *(Attempt(f"a stranger looks at {path}", path, (303,), who=None, then=_to_log_in) for path in PAGES),
    Attempt(
        "a stranger polls", "/now", (401,), who=None, headers={"HX-Request": "true"},
        then=lambda answer: answer.headers["hx-redirect"] == "/log-in" and not answer.text,
    ),
    *(
        Attempt(
            f"a stranger sends {path}", path, (303,), "POST",
            who=None, headers=OURS, fields=fields, then=_to_log_in,
        )
        for path, fields in ACTIONS.items()
    ),
    *(
        Attempt(f"a viewer sends {path}", path, (403,), "POST", who="otto", headers=OURS, fields=fields)
        for path, fields in ACTIONS.items()
    ),
    _close("without an origin"),
    _close("from another site", headers={"Origin": "http://evil.example"}),
    _close("from a page without an origin", headers={"Origin": "null"}),
    _close("from another port", headers={"Origin": "http://127.0.0.1:8601"}),
    _close("from a name that begins as ours", headers={"Origin": f"{HOST}.evil.example"}),
    _close("from a name that ends as ours", headers={"Origin": "http://evil.example@127.0.0.1:8600"}),
    _close("the browser says cross-site", headers=OURS | {"Sec-Fetch-Site": "cross-site"}),
    _close("the browser says same-site", headers=OURS | {"Sec-Fetch-Site": "same-site"}),
    _close("without a form token", headers=OURS, token=None),
    _close("with a form token that is made up", headers=OURS, token="0" * 64),
    _close("with the form token of another's session", headers=OURS, token="otto"),
    _close("with a form token in another script", headers=OURS, token="ü" * 64),
    _close("as JSON", (400, 403), headers=OURS | {"Content-Type": "application/json"}),
    _close("too large a body", (413,), headers=OURS | {"X-Filler": "1"}, token="x" * 70_000),
    Attempt("a change by GET", "/gate/close?reason=x", (405,)),
    Attempt("a change by HEAD", "/gate/close?reason=x", (405,), "HEAD"),
    Attempt("PUT", "/gate", (405,), "PUT", headers=OURS),
    Attempt("DELETE", "/lanes/sms", (405,), "DELETE", headers=OURS),
    Attempt("a method told in a field", "/gate", (405,), "POST", headers=OURS, fields={"_method": "DELETE"}),
    Attempt("a log-in by GET", f"/log-in?name=mei&password={PASSWORD}", (200,), who=None,
            then=lambda answer: "session" not in str(answer.headers.get_list("set-cookie"))),
    Attempt("a probe, which names any host", "/healthz", (200,), who=None, headers={"Host": "10.0.0.7"},
            then=lambda answer: answer.text == "ok\n"),
    Attempt("another host's name", "/", (421,), headers={"Host": "evil.example"}),
    Attempt("a host that begins as ours", "/", (421,), headers={"Host": "localhost.evil.example"}),
    Attempt("a host with a user", "/", (421,), headers={"Host": "127.0.0.1@evil.example"}),
    Attempt("a host that is none", "/", (421,), headers={"Host": "127.0.0.1:port"}),
    Attempt("a forwarded host is not believed", "/", (200,), headers={"X-Forwarded-Host": "evil.example"},
            then=lambda answer: "evil.example" not in answer.text),
    *(
        Attempt(f"out of the assets: {path}", path, (404,))
        for path in (
            "/assets/../console.py", "/assets/%2e%2e%2fconsole.py", "/assets/..%5cconsole.py",
            "/assets/%00base.css", "/assets/etc/passwd", "/assets/en.toml",
        )
    ),
    Attempt("a script in a dead letter's reason", "/dead", (200,), then=_escaped(SCRIPT)),
    Attempt("a script in a dead letter's arguments", f"/dead/{LETTER}", (200,), then=_escaped(IMAGE)),
    Attempt("a script in a reason of the trail", "/trail", (200,), then=_escaped(SCRIPT)),
    Attempt("a script in what the provider answers", f"/batches/{BATCH}", (200,), then=_escaped(IMAGE)),
    Attempt("a script in a filter", f"/dead?contains={SCRIPT}", (200,), then=_escaped(SCRIPT)),
    Attempt("a script as the page", f"/log-in?next=/{SCRIPT}", (200,), who=None, then=_escaped(SCRIPT)),
    Attempt("SQL in a filter", "/dead?contains=' OR 1=1 --&kind='; DROP TABLE account; --&task=%", (200,)),
    Attempt("SQL in a page's beginning", "/dead?before=2026-01-01T00:00:00Z~' OR ''='", (200,)),
    Attempt("SQL in a person's name", "/trail?who='; DELETE FROM operator_action; --", (200,)),
    Attempt("SQL in a lane", "/calls?lane=' OR 1=1 --&before=infinity", (200,)),
    Attempt("SQL in an id", "/batches/' OR 1=1 --", (404,)),
    Attempt("SQL in a number", "/explain", (422,), "POST", headers=OURS, fields={"mobile": "1' OR '1'='1"}),
    Attempt("SQL in a name at log-in", "/log-in", (403,), "POST", who=None, headers=OURS,
            fields={"name": "mei' --", "password": "x"}),
    Attempt("NUL in a filter", "/dead?contains=%00&kind=%00", (200,)),
    Attempt("another site after the log-in", "/log-in?next=//evil.example", (200,), who=None,
            then=lambda answer: 'name="next" value="/">' in answer.text),
    *(
        Attempt(f"what headers has {path}", path, (200, 303, 404), who=who, then=_strict)
        for path, who in (
            ("/", "mei"), ("/nothing", "mei"), ("/log-in", None), ("/assets/base.css", None), ("/now", "mei"),
        )
    ),
    Attempt(
        "a page kept by a cache", "/dead", (200,),
        then=lambda answer: answer.headers["cache-control"] == "no-store",
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def console(postgres_server: str, migrated_template: str) -> Iterator[Watched]:
    with (
        services.own_database(postgres_server, "attempts", template=migrated_template) as name,
        operators_console(services.database_url(postgres_server, name)) as made,
    ):
        engine.transact(made.database, _seed)
        yield made


@pytest.fixture(scope="module")
def clients(console: Watched) -> dict[str | None, WebClient]:
    return {"mei": console.client("mei"), "otto": console.client("otto")}


def _seed(to: Connection) -> None:
    """What an attacker may have brought into the tables by messages, or as an operator."""
    now = datetime.now(UTC)
    arguments = {"message_id": "m1", "mobile": NUMBER, IMAGE: IMAGE}
    letter = DeadLetter(LETTER, SCRIPT, arguments, f"{SCRIPT} {IMAGE}", SCRIPT, now)
    dead_letters.add(to, [letter])
    operator_actions.add(to, who="ann", action=SCRIPT, subject=IMAGE, reason=SCRIPT)
    run(to, outbox.adding(BATCH, lane=Lane.SMS, decided_at=now, numbers=1, with_changes=True))
    to.execute(
        text("""
            INSERT INTO check_request (source, lane, reference, attempt, msisdn, status, current_operator,
                area, decision, reason, batch_id, event_id, received_at, decided_at)
            VALUES (:script, 'sms', :script, 1, :msisdn, 'ported', :image, :image, :image, :image, :batch,
                :batch, :now, :now)
        """),
        {"script": SCRIPT, "image": IMAGE, "msisdn": int(NUMBER), "batch": BATCH, "now": now},
    )


def _state(console: Watched) -> list[Any]:
    """All that an attempt could have changed."""
    return [
        console.rows(query)
        for query in (
            "SELECT * FROM gate",
            "SELECT * FROM lane_pause",
            "SELECT id, replayed_at FROM dead_letter",
            "SELECT count(*) FROM check_request",
            "SELECT name, role, password_hash, disabled_at FROM console_operator ORDER BY 1",
            "SELECT who, action, subject FROM operator_action WHERE action !~ 'log_in' ORDER BY id",
        )
    ]


def test_there_are_enough() -> None:
    assert len(ATTEMPTS) >= 60
    assert len({attempt.name for attempt in ATTEMPTS}) == len(ATTEMPTS)


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_an_attempt_fails(console: Watched, clients: dict[str | None, WebClient], attempt: Attempt) -> None:
    client = console.client() if attempt.who is None else clients[attempt.who]
    before = _state(console)
    fields: dict[str, str] | None = None
    if attempt.method == "POST":
        tokens = {
            "own": lambda: form_token(client.get("/gate" if attempt.who else "/log-in").text),
            "otto": lambda: form_token(clients["otto"].get("/gate").text),
        }
        token = attempt.token and tokens.get(attempt.token, lambda: attempt.token)()
        fields = attempt.fields | ({"form_token": token} if token else {})
    answer = client.request(attempt.method, attempt.path, data=fields, headers=attempt.headers)
    assert answer.status_code in attempt.statuses, answer.text[-600:]
    assert attempt.then(answer), (answer.headers, answer.text[-1500:])
    assert _state(console) == before


def test_a_planted_a_stolen_and_an_old_session_open_nothing(console: Watched) -> None:
    """Fixation, a session that is logged out, idle, over, revoked, or of the other site."""

    def opens(token: str) -> bool:
        client = console.client()
        client.cookies.set("presend_console_session", token)
        return client.get("/gate").status_code == 200

    planted = console.client()
    planted.cookies.set("presend_console_session", "planted", domain="127.0.0.1")
    planted.submit("/log-in", page="/log-in", name="mei", password=PASSWORD)
    assert not opens("planted")
    token = next(cookie.value for cookie in planted.cookies.jar if cookie.value and cookie.value != "planted")
    assert opens(token)
    with console.database.begin() as to:
        to.execute(text("UPDATE web_session SET seen_at = seen_at - interval '31 minutes'"))
    assert not opens(token)
    with console.database.begin() as to:
        to.execute(text("UPDATE web_session SET seen_at = now(), ends_at = now()"))
    assert not opens(token)
    fresh = console.client("mei")
    token = fresh.cookies["presend_console_session"]
    assert opens(token)
    fresh.submit("/log-out", page="/gate")
    assert not opens(token)
    engine.transact(
        console.database,
        lambda to: web_sessions.add(to, "other", site="query", subject="mei", lifetime=timedelta(hours=1)),
    )
    assert not opens("other")


def test_the_cookies_flags_over_http_and_https(console: Watched, migrated_template: str) -> None:
    plain = console.client().submit("/log-in", page="/log-in", name="mei", password=PASSWORD)
    cookie = plain.headers["set-cookie"]
    assert cookie.startswith("presend_console_session=")
    assert "; HttpOnly; Path=/; SameSite=strict" in cookie
    assert "Secure" not in cookie  # a browser would not send it back over http
    assert "Domain" not in cookie
    secure = WebClient(console.app, "https://127.0.0.1:8600")
    cookie = secure.submit("/log-in", page="/log-in", name="mei", password=PASSWORD).headers["set-cookie"]
    assert cookie.startswith("__Host-presend_console_session=")
    assert "; HttpOnly; Path=/; SameSite=strict; Secure" in cookie


def test_guessing_a_password_waits_and_tells_nothing(console: Watched) -> None:
    def guess(name: str) -> httpx.Response:
        client = WebClient(console.app, HOST, address="198.51.100.7")
        return client.submit("/log-in", page="/log-in", name=name, password="wrong")

    answers = [guess("mei") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [403] * 5
    assert "mei" not in answers[0].text.replace("name", "")
    refused = guess("mei")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    # somebody who is not there is told the same
    assert guess("nobody").status_code == 403
    with console.database.begin() as to:
        to.execute(text("DELETE FROM log_in_attempt"))
