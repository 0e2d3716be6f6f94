"""Where a download may go: HTTPS, redirects to nothing weaker, and a fresh URL for one that expired."""

import threading
from pathlib import Path

import pytest

from download_support import CONTENT, LIMITS, fetch, server_context
from edgeml.errors import DisconnectedError, IpcError
from model_updater.download import MAX_REDIRECTS, check_url, download
from model_updater.errors import JobGone, UpdateError
from ota_support import FileServer


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_expired_url_is_renewed(server: FileServer, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    old, new = server.add(CONTENT, "/old"), server.add(CONTENT, "/new")
    asked: list[bool] = []

    def url(renew: bool) -> str:
        asked.append(renew)
        return new if renew else old

    download(url, tmp_path / "part", len(CONTENT), LIMITS, threading.Event())
    assert asked == [False, True]
    assert [path for path, _ in server.requests] == ["/old", "/new"]


def test_while_aws_iot_does_not_answer_a_fresh_url_is_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [403, 403]
    old, new = server.add(CONTENT, "/old"), server.add(CONTENT, "/new")
    answers = iter([IpcError("no answer"), None])

    def url(renew: bool) -> str:
        if renew and (error := next(answers)):
            raise error
        return new if renew else old

    download(url, tmp_path / "part", len(CONTENT), LIMITS, threading.Event())
    assert [path for path, _ in server.requests] == ["/old", "/old", "/new"]


@pytest.mark.parametrize("final", [JobGone("cancelled"), DisconnectedError("the socket is gone")])
def test_an_answer_that_ends_the_job_or_the_process_ends_the_download(
    server: FileServer, tmp_path: Path, final: IpcError
) -> None:
    server.statuses = [403]
    old = server.add(CONTENT)

    def url(renew: bool) -> str:
        if renew:
            raise final
        return old

    with pytest.raises(type(final)):
        download(url, tmp_path / "part", len(CONTENT), LIMITS, threading.Event())


@pytest.mark.parametrize(
    "url",
    [
        "http://host/x",
        "ftp://host/x",
        "file:///etc/passwd",
        "data:,x",
        "https:///x",
        "https://user:pw@host/x",
        "host/x",
        "https://host/a b",
        "https://host/a\nb",
        "https://host:port/",
    ],
)
def test_only_https_by_default(url: str) -> None:
    with pytest.raises(
        UpdateError, match=r"download URL .*(only https are allowed|must not hold a user name)"
    ) as refused:
        check_url(url, allow_http=False)
    assert "pw" not in str(refused.value)
    check_url("https://host/x", allow_http=False)
    check_url("http://host/x", allow_http=True)


def test_a_redirect_to_another_scheme_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.statuses, server.location = [302], "ftp://127.0.0.1/etc/passwd"
    with pytest.raises(UpdateError, match="expected https or http"):
        fetch(server.add(CONTENT), tmp_path / "part")
    assert len(server.requests) == 1, "not asked again: it would say the same"


def test_a_redirect_from_https_to_http_is_refused_even_where_http_is_allowed(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileServer(tls=server_context(tmp_path, monkeypatch)) as safe:
        safe.statuses, safe.location = [302], server.add(CONTENT)
        with pytest.raises(UpdateError, match="not encrypted"):
            fetch(f"{safe.url}/here", tmp_path / "part")
    assert server.requests == []


def test_a_url_that_can_never_work_is_not_asked_again(tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="a URL has no ' '"):
        fetch("http://127.0.0.1:1/a b?X-Amz-Signature=secret", tmp_path / "part")


@pytest.mark.parametrize("count", [0, 1, MAX_REDIRECTS - 1, MAX_REDIRECTS, MAX_REDIRECTS + 1])
def test_redirects_are_followed_so_far(server: FileServer, tmp_path: Path, count: int) -> None:
    server.location = server.add(CONTENT, "/there")
    server.statuses = [307] * count
    start = f"{server.url}/{'here' if count else 'there'}"
    if count <= MAX_REDIRECTS:
        assert fetch(start, tmp_path / "part") == CONTENT
    else:
        with pytest.raises(UpdateError, match="redirect"):
            fetch(start, tmp_path / "part")
