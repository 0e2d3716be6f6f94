"""Who may look: the password's file, signing in and out, and what counts as an attempt."""

import asyncio
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from monitor import sessions
from monitor.access import Access, password_of
from monitor.app import application
from monitor.attempts import BURST
from monitor.errors import AccessError
from monitor.signing import COOKIE
from monitor.state import State
from monitor_support import client_of, serving
from support import Standalone, eventually


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("monitor")


@pytest.fixture(scope="module")
def base(work: Path) -> Iterator[str]:
    with Standalone("monitor", {"port": 0}, work) as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        yield running.log.partition("address=")[2].split()[0].rstrip("/")
        password = (work / "password").read_text().strip()
        assert str(work / "password") in running.log
        assert password not in running.log


@pytest.fixture
def client(base: str) -> Iterator[httpx.Client]:
    with client_of(base) as client:
        yield client


def test_the_page_is_for_who_signs_in_until_he_signs_out(client: httpx.Client, base: str, work: Path) -> None:
    refused = client.get("/")
    assert (refused.status_code, refused.headers["location"]) == (302, "/sign-in")
    assert 'name="password"' in client.get("/sign-in").text
    assert client.post("/sign-in", data={"password": "wrong"}).status_code == 401
    password = (work / "password").read_text().strip()
    taken = client.post("/sign-in", data={"password": password}, headers={"Origin": base})
    assert (taken.status_code, taken.headers["location"]) == (303, "/")
    cookie = taken.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/").status_code != 302
    token = client.cookies[COOKIE]
    client.post("/sign-out")
    assert client.get("/", headers={"Cookie": f"{COOKIE}={token}"}).status_code == 302


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1", ""])
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_another_page_cannot_sign_in_or_out(client: httpx.Client, origin: str, path: str) -> None:
    assert client.post(path, data={"password": "x"}, headers={"Origin": origin}).status_code == 403


def test_a_tool_sends_the_password_with_its_request(client: httpx.Client, work: Path) -> None:
    password = (work / "password").read_text().strip()
    tools: list[dict[str, Any]] = [
        {"auth": ("anyone", password)},
        {"headers": {"Authorization": f"Bearer {password}"}},
    ]
    for _ in range(2 * BURST):  # what is right does not count, and is not even hashed again
        for tool in tools:
            assert client.get("/api/state", **tool).status_code == 200
    assert client.get("/api/state").status_code == 401


NO_PASSWORDS = ["", "Bearer", "Basic", "Basic !", "Basic eDp5", "Digest x", "Bearer wrong", "Bearer " + "x" * 9000]


@pytest.mark.parametrize("header", NO_PASSWORDS, ids=range(len(NO_PASSWORDS)))
def test_a_tool_without_it_is_refused(tmp_path: Path, header: str) -> None:
    with serving(tmp_path, access=Access("the password")) as (host, port), client_of(f"http://{host}:{port}") as tool:
        found = [tool.get("/api/state", headers={"Authorization": header}).status_code for _ in range(BURST + 1)]
    assert set(found) <= {401, 429}


FROM_ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},  # another port of ours
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "x"},
    {"Origin": "http://evil.example"},
]


@pytest.mark.parametrize("headers", FROM_ELSEWHERE, ids=range(len(FROM_ELSEWHERE)))
@pytest.mark.parametrize("path", ["/", "/api/state", "/static/app.js", "/nowhere"])
def test_another_page_gets_nothing_at_all(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    assert client.get(path, headers=headers).status_code == 403


def test_a_link_on_another_page_leads_here(client: httpx.Client) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/sign-in", headers=link).status_code == 200
    assert client.post("/sign-out", headers=link).status_code == 403


FORMS = {
    "nothing": b"",
    "no field": b"password",
    "another field": b"user=x",
    "two fields": b"password=x&user=y",
    "no text": b"password=%ff",
    "no UTF-8": b"password=\xff",
    "too long": b"password=" + b"x" * 5000,
    "json": b'{"password": "x"}',
}


@pytest.mark.parametrize("case", FORMS)
def test_what_is_no_form_is_refused_and_is_no_attempt(client: httpx.Client, case: str) -> None:
    assert client.post("/sign-in", content=FORMS[case]).status_code == 400


@pytest.mark.parametrize("token", ["", "x", "x" * 4000, "é", '"a;b"'])
def test_a_cookie_of_ones_own_making_is_no_session(client: httpx.Client, token: str) -> None:
    assert client.get("/", headers=[(b"Cookie", f"{COOKIE}={token}".encode())]).status_code == 302


def test_nobody_is_asked_where_auth_is_off(tmp_path: Path) -> None:
    with Standalone("monitor", {"port": 0, "auth": "off"}, tmp_path / "work") as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        base = running.log.partition("address=")[2].split()[0]
        assert httpx.get(base, trust_env=False).status_code != 302
        assert not (tmp_path / "work" / "password").exists()


def test_a_file_that_is_refused_is_no_problem_where_nobody_is_asked(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "password").write_text("x")
    (work / "password").chmod(0o644)
    with Standalone("monitor", {"port": 0}, work) as running:
        eventually(lambda: "code=file_refused" in running.log, what="the problem")
        running.configure({"port": 0, "auth": "off"})
        eventually(lambda: "problem is over code=file_refused" in running.log, what="its end")


def test_a_form_that_is_cut_off_is_none(tmp_path: Path) -> None:
    """As it arrives from a client that is gone in the middle: no error of ours, with a traceback for each."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"pass", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/sign-in", "query_string": b"", "scheme": "http"}
    scope |= {"headers": [(b"host", b"localhost")], "http_version": "1.1", "root_path": "", "server": ("127.0.0.1", 1)}
    app: Any = application(tmp_path, State("thing", "1", lambda: ()), Access("right"))
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 400


def test_sessions_end_by_time_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    access = Access("right", lambda: now[0])
    first, second, third = (access.sign_in("right") or "" for _ in range(3))
    assert [access.valid(token) for token in (first, second, third)] == [False, True, True]
    now[0] += sessions.SESSION_S
    assert [access.valid(token) for token in (second, third)] == [False, False]


def test_sessions_outlast_a_restart_but_no_other_password_and_no_other_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sessions"

    def lasts(token: str, given: str = "right") -> bool:
        return Access(given, file=file).valid(token)

    access = Access("right", file=file)
    token, other = (access.sign_in("right") or "" for _ in range(2))
    assert lasts(token)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token not in file.read_text()
    access.sign_out(other)
    assert lasts(token)
    assert not lasts(other)
    unix = time.time()
    for away, expected in ((sessions.SESSION_S - 60, True), (sessions.SESSION_S, False), (-60, False)):
        monkeypatch.setattr(sessions, "time", SimpleNamespace(time=lambda now=unix + away: now))
        assert lasts(token) is expected, away
    monkeypatch.undo()
    assert not lasts(token, "another")
    Access("another", file=file).sign_in("another")
    assert not lasts(token)  # when that is changed back


@pytest.mark.parametrize("content", [b"", b"{}", b'{"salt":"AAAA"}', b"x" * 20_000, b'{"salt":1}'], ids=range(5))
def test_what_keeps_no_sessions_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "sessions"
    file.write_bytes(content)
    file.chmod(0o600)
    token = Access("right", file=file).sign_in("right")
    assert Access("right", file=file).valid(token or "")


@pytest.mark.parametrize("make", [Path.mkdir, lambda file: file.symlink_to("/etc/passwd")], ids=["folder", "link"])
def test_what_takes_no_sessions_lets_people_in_all_the_same(tmp_path: Path, make: Callable[[Path], None]) -> None:
    file = tmp_path / "sessions"
    make(file)
    access = Access("right", file=file)
    token = access.sign_in("right") or ""
    assert access.valid(token)


def test_the_generated_password_is_kept_and_for_its_owner_alone(tmp_path: Path) -> None:
    password = password_of(tmp_path / "password")
    assert len(password) == 20
    assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600
    assert password_of(tmp_path / "password") == password


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
def test_a_password_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "password"
    file.write_text("a secret")
    file.chmod(mode)
    with pytest.raises(AccessError, match="0600") as refused:
        password_of(file)
    assert "a secret" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff", b"x" * 2000, b"7 bytes"])
def test_a_file_that_holds_no_password_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(AccessError, match="password"):
        password_of(file)


def test_a_link_or_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        with pytest.raises(AccessError, match="0600"):
            password_of(tmp_path / name)
