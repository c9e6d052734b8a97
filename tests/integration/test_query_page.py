"""The query page by its forms, as a browser without scripts sends them."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.provider import WatchedSandbox
from tests.acceptance.waiting import eventually
from tests.front_door import Front, front_door
from tests.web_client import form_token
from worker.errors import ListRefused
from worker.sandbox.serving import serving
from worker.serve.jobs import lists
from worker.serve.page import listing
from worker.storage import accounts, engine

PORTED = "13972565391"


class Browser(httpx.Client):
    """Sends forms as the page's own, follows redirects, keeps cookies."""

    def __init__(self, front: Front, language: str = "en") -> None:
        super().__init__(
            base_url=front.url, timeout=20, follow_redirects=True, headers={"Accept-Language": language}
        )

    def submit(self, path: str, *, page: str = "/", files: Any = None, **fields: str) -> httpx.Response:
        fields = {"form_token": form_token(self.get(page).text)} | fields
        return self.post(path, data=fields, files=files, headers={"Origin": str(self.base_url).rstrip("/")})

    def log_in(self, key: str) -> httpx.Response:
        return self.submit("/log-in", page="/log-in", key=key)


@pytest.fixture
def front(database_url: str) -> Iterator[Front]:
    with serving(WatchedSandbox()) as provider_url, front_door(database_url, provider_url) as opened:
        yield opened


@pytest.fixture
def browser(front: Front) -> Iterator[Browser]:
    with Browser(front) as made:
        yield made


def job_path(response: httpx.Response) -> str:
    found = re.search(r"/jobs/[0-9a-f-]{36}", str(response.url))
    assert found, response.text[:2000]
    return found[0]


def test_one_number_costs_what_a_call_costs(front: Front, browser: Browser) -> None:
    key = front.account()
    assert browser.log_in(key).url.path == "/"
    answer = browser.submit("/look-up", mobile="+86 139-7256-5391")
    assert "China Telecom" in answer.text
    assert "999" in answer.text
    assert "A mobile number has 11 digits" in browser.submit("/look-up", mobile="1397256").text
    eventually(lambda: not front.rows("SELECT FROM account_hold"), "its answer to be known as sent")
    assert (front.charged(), front.stands().balance) == (1, 999)
    engine.transact(front.database, lambda to: accounts.top_up(to, "shop", -999, by="mei"))
    assert "Your balance is used up" in browser.submit("/look-up", mobile=PORTED).text


def test_a_list_is_uploaded_followed_and_downloaded_in_both_languages(front: Front, browser: Browser) -> None:
    browser.log_in(front.account())
    content = f"姓名,手机号\n张三,{PORTED}\n李四,=1+2\n王五,13798361236\n".encode("gb18030")
    begun = browser.submit("/list", files={"list": ("充值.csv", content, "text/csv")})
    path = job_path(begun)
    eventually(lambda: "Finished" in browser.get(path).text, "the job to finish")
    page = browser.get(path).text
    assert "1 row holds no mobile number" in page
    assert "=1+2" in page
    ended = browser.get(f"{path}/progress", headers={"HX-Request": "true"})
    assert ended.headers["hx-refresh"] == "true"

    got = browser.get(f"{path}/result.csv")
    assert "filename*=UTF-8''%E5%85%85%E5%80%BC-presend.csv" in got.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(got.content.decode("utf-8-sig"))))
    assert [(row["line"], row["mobile"], row["code"], row["current_operator"]) for row in rows] == [
        ("2", PORTED, "0", "CTCC"),
        ("3", "'=1+2", "1", ""),
        ("4", "13798361236", "0", "CMCC"),
    ]
    browser.submit("/language", page=path, language="zh", next=path)
    assert "已完成" in browser.get(path).text
    chinese = browser.get(f"{path}/result.csv").content.decode("utf-8-sig")
    assert chinese.splitlines()[0].startswith("行号,手机号码,代码,状态,号段归属运营商,当前运营商")
    assert "中国电信" in chinese
    statement = browser.get("/account/statement.csv").content.decode("utf-8-sig")
    assert [
        (row["类型"], row["变动"], row["余额"], row["备注"]) for row in csv.DictReader(io.StringIO(statement))
    ] == [
        ("开户余额", "1000", "1000", ""),
        ("查询计费", "-2", "998", "充值.csv"),
    ]
    assert f'<a href="{path}">充值.csv</a>' in browser.get("/account").text
    gone = browser.submit(f"{path}/delete", page=path)
    assert gone.url.path == "/jobs"
    assert browser.get(path).status_code == 404
    assert "已删除的任务" in browser.get("/account").text
    assert not front.rows("SELECT job_id FROM job_part UNION ALL SELECT job_id FROM job_error")


def test_pause_resume_and_cancel_are_the_owners(front: Front, browser: Browser) -> None:
    browser.log_in(front.account(balance=1))
    path = job_path(browser.submit("/list", numbers=f"{PORTED}, 13798361236"))
    eventually(lambda: "Have the account topped up" in browser.get(path).text, "the job to pause")
    with Browser(front) as other:
        other.log_in(front.account("other"))
        assert other.get(path).status_code == 404
        assert other.submit(f"{path}/resume").status_code == 404
        assert other.get(f"{path}/result.csv").status_code == 404
    engine.transact(front.database, lambda to: accounts.top_up(to, "shop", 1, by="mei"))
    assert "The list goes on." in browser.submit(f"{path}/resume", page=path).text
    eventually(lambda: "Finished" in browser.get(path).text, "the job to finish")
    assert "had changed meanwhile" in browser.submit(f"{path}/cancel", page=path).text


def test_every_refusal_of_a_list_is_a_sentence_in_both_languages(
    front: Front, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = front.account()
    browser.log_in(key)
    refused = browser.submit("/list", files={"list": ("a.csv", b"a,b\n13800138000,13900139000", "text/csv")})
    assert refused.status_code == 422
    assert "The first row reads: 1 a, 2 b." in refused.text
    both = browser.submit("/list", files={"list": ("a.csv", PORTED.encode(), "text/csv")}, numbers=PORTED)
    assert "There are both a file and pasted numbers" in both.text
    assert "Choose a file or paste some numbers first." in browser.submit("/list", numbers=" ").text
    monkeypatch.setattr(lists, "MOST_ROWS", 1)
    assert "more than 1 rows" in browser.submit("/list", numbers="13800138000 \n13900139000").text
    for language in ("zh", "en"):
        for code in _codes_of(lists, listing):
            browser.headers["Accept-Language"] = language
            told = ListRefused(code, line=1, columns="1 a", column="b", most=2)
            monkeypatch.setattr(listing, "NumberList", partial(_refuse, told))
            assert "refused." not in browser.submit("/list", numbers="13800138000").text, code


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(front: Front, browser: Browser) -> None:
    browser.log_in(front.account())
    asking = HTTPConnection(str(browser.base_url.netloc, "ascii"), timeout=10)
    asking.putrequest("POST", "/list")
    for name, value in {
        "Origin": front.url,
        "Cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items()),
        "Content-Type": "multipart/form-data; boundary=x",
        "Content-Length": str(65 * 2**20),
    }.items():
        asking.putheader(name, value)
    asking.endheaders()
    answer = asking.getresponse()
    assert answer.status == 413
    assert b"413" in answer.read()
    asking.close()


def test_no_other_site_can_send_a_form_and_no_key_is_anywhere(
    front: Front, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    key = front.account()
    with caplog.at_level("DEBUG"):
        wrong = browser.log_in("0" * 32)
        assert (wrong.status_code, "0" * 32 in wrong.text) == (403, False)
        browser.log_in(key)
        path = job_path(browser.submit("/list", numbers=PORTED))
        pages = [browser.get(each).text for each in ("/", "/jobs", path, "/account", f"{path}/result.csv")]
    token = form_token(pages[0])
    fields = {"form_token": token, "mobile": PORTED}
    evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert browser.post("/look-up", data=fields, headers=evil).status_code == 403
    for action in ("pause", "resume", "cancel", "delete"):
        assert browser.post(f"{path}/{action}", data=fields, headers=evil).status_code == 403
        assert browser.post(f"{path}/{action}", headers={"Origin": front.url}).status_code == 403
    assert browser.get("/", headers={"Host": "evil.example"}).status_code == 421
    assert browser.put("/carrier").status_code == 405, "the contract's paths stay its own"
    assert not any(key in page for page in pages)
    assert key not in str(browser.cookies)
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert not [record for record in ours if key in record.getMessage()]
    for (table,) in front.rows(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    ):
        assert not front.rows(f"SELECT FROM {table} t WHERE t::text LIKE '%{key}%'"), table


def test_guesses_wait_and_a_wrong_key_costs_what_a_right_one_costs(front: Front) -> None:
    key = front.account()
    with Browser(front) as browser:
        near = [key[:-1] + ("0" if key[-1] != "0" else "1"), "x" * 32, "", "密钥" * 16, "x" * 5000]
        assert {browser.log_in(each).status_code for each in near} == {403}
        took = {each: _fastest(partial(accounts.of_key, key=each), front) for each in (key, near[0], near[1])}
        assert max(took.values()) < 3 * min(took.values())
        codes = [browser.log_in(f"{n:032d}").status_code for n in range(30)]
        assert (codes[0], codes[-1]) == (403, 429)


def test_a_session_ends_with_its_account_or_its_key(front: Front, browser: Browser) -> None:
    browser.log_in(front.account())
    assert browser.get("/account").url.path == "/account"
    rotate = partial(accounts.rotate, name="shop", grace=accounts.timedelta(0), by="mei")
    _, key = engine.transact(front.database, rotate)
    assert browser.get("/account").url.path == "/log-in"
    browser.log_in(key)
    assert browser.get("/account").url.path == "/account"
    disable = partial(accounts.set_disabled, name="shop", disabled=True, by="mei", reason="test")
    engine.transact(front.database, disable)
    assert browser.get("/account").url.path == "/log-in"
    assert "This account is disabled" in browser.log_in(key).text


def _fastest(query: Any, front: Front) -> float:
    def once() -> float:
        began = time.perf_counter()
        engine.read(front.database, query)
        return time.perf_counter() - began

    return min(once() for _ in range(50))


def _codes_of(*modules: Any) -> set[str]:
    sources = [Path(module.__file__).read_text("utf-8") for module in modules]
    return {code for source in sources for code in re.findall(r'ListRefused\("([a-z_]+)"', source)}


def _refuse(told: ListRefused, *_: Any, **__: Any) -> None:
    raise told
