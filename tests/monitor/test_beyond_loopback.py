"""The page on another address than loopback: never without TLS and a password, and under which names."""

import hashlib
import json
import os
import re
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from certificates import certificate as pem_of_tests
from monitor import certificate
from monitor.certificate import own
from monitor.errors import AccessError
from monitor.signing import BROWSER, COOKIE, HOST_ONLY
from monitor_support import QUIET, client_of
from support import Standalone

SECURE_COOKIE = HOST_ONLY + COOKIE
EVERYWHERE = {**QUIET, "address": "0.0.0.0"}  # noqa: S104  (that is what is tested)
ADDRESS = re.compile(r"address=(https?)://(\S+):(\d+)/ sha256=(\S+)")


def where(running: Standalone) -> tuple[str, str]:
    """URL on loopback, and the certificate's fingerprint, as the log has it."""
    running.logged("sha256=")
    found = ADDRESS.search(running.log)
    assert found is not None
    assert found[1] == "https"
    return f"https://127.0.0.1:{found[3]}", found[4]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    config = {**EVERYWHERE, "hosts": ["press.factory", "198.51.100.7"]}
    with Standalone("monitor", config, tmp_path_factory.mktemp("monitor")) as running:
        yield running


@pytest.fixture
def client(running: Standalone) -> Iterator[httpx.Client]:
    with client_of(where(running)[0]) as client:
        yield client


def test_a_certificate_of_its_own_whose_fingerprint_the_log_tells(running: Standalone) -> None:
    base, told = where(running)
    shown = ssl.get_server_certificate(("127.0.0.1", int(base.rpartition(":")[2])))
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).digest().hex(":").upper() == told
    file = running.config_file.parent / "certificate.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    trusting = ssl.create_default_context(cadata=shown)
    for host in ("127.0.0.1", "press.factory"):  # a browser that was told to trust it finds the names in it
        trusting.hostname_checks_common_name = False
        transport = httpx.HTTPTransport(verify=trusting)
        extensions = {"sni_hostname": host}
        with httpx.Client(transport=transport, timeout=10) as client:
            headers = {"Host": f"{host}:{base.rpartition(':')[2]}"}
            assert client.get(f"{base}/sign-in", headers=headers, extensions=extensions).status_code == 200


def test_without_tls_there_is_no_answer(running: Standalone) -> None:
    with client_of(where(running)[0].replace("https", "http")) as client, pytest.raises(httpx.TransportError):
        client.get("/healthz")


def test_the_cookie_is_for_tls_alone(running: Standalone, client: httpx.Client) -> None:
    password = (running.config_file.parent / "password").read_text().strip()
    assert client.get("/").status_code == 302
    taken = client.post("/sign-in", data={"password": password}, headers={"Origin": str(client.base_url).rstrip("/")})
    assert taken.status_code == 303
    cookies = taken.headers.get_list("set-cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == [SECURE_COOKIE, HOST_ONLY + BROWSER]
    for cookie in cookies:
        for part in ("Secure", "HttpOnly", "SameSite=strict", "Path=/"):
            assert part in cookie
    assert client.get("/").status_code != 302
    token = client.cookies[SECURE_COOKIE]
    assert client.get("/", headers={"Cookie": f"{COOKIE}={token}"}).status_code == 302
    out = client.post("/sign-out")
    assert "Secure" in out.headers["set-cookie"]
    assert client.get("/", headers={"Cookie": f"{SECURE_COOKIE}={token}"}).status_code == 302


HOSTS = {
    "localhost": 200,
    "127.0.0.1": 200,
    "press.factory": 200,
    "PRESS.factory:9": 200,
    "198.51.100.7": 200,
    os.uname().nodename.lower(): 200,
    f"{os.uname().nodename.lower()}.local": 200,
    "198.51.100.8": 421,
    "evil.example": 421,
    "x.press.factory": 421,
    "[::1]": 421,
    "0.0.0.0": 421,  # noqa: S104
}


@pytest.mark.parametrize("host", HOSTS)
def test_names_of_the_device(client: httpx.Client, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == HOSTS[host]


def test_each_address_of_the_device_is_a_name_of_it(tmp_path: Path) -> None:
    """The very one that a request has reached, IPv6 in brackets, and IPv4 as such though the socket is one of both."""
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    with Standalone("monitor", {**QUIET, "address": "::"}, tmp_path) as running:
        port = where(running)[0].rpartition(":")[2]
        for name, other in (("[::1]", "[::2]"), ("127.0.0.1", "127.0.0.2")):
            with client_of(f"https://{name}:{port}") as client:
                assert client.get("/healthz").status_code == 200
                assert client.get("/healthz", headers={"Host": other}).status_code == 421


@pytest.mark.parametrize("origin", ["http", "https"])
def test_an_origin_without_tls_is_another_one(client: httpx.Client, origin: str) -> None:
    headers = {"Origin": str(client.base_url).rstrip("/").replace("https", origin)}
    status = client.post("/sign-in", data={"password": "wrong"}, headers=headers).status_code
    assert (status == 403) is (origin == "http")


NEVER: dict[str, dict[str, Any]] = {
    "auth: expected password": {"auth": "off"},
    "key: expected a PEM file": {"certificate": "/x.pem"},
    "certificate: expected a PEM file": {"key": "/x.pem"},
    "address: expected an IP address": {"address": "everywhere"},
    "hosts.0: expected": {"hosts": ["a b"]},
}


@pytest.mark.parametrize("words", NEVER)
def test_what_can_never_be_served_ends_the_start(tmp_path: Path, words: str) -> None:
    with Standalone("monitor", {**EVERYWHERE, **NEVER[words]}, tmp_path) as running:
        assert running.ended() == 78
    assert f"configuration {words}" in running.log
    assert "page address" not in running.log


def test_a_given_certificate_or_nothing(tmp_path: Path) -> None:
    pem = pem_of_tests(tmp_path)
    pem.chmod(0o644)
    config = {**EVERYWHERE, "certificate": str(pem), "key": str(pem)}
    with Standalone("monitor", config, tmp_path / "work") as running:
        running.logged("code=file_refused")
        assert "page address" not in running.log
        pem.chmod(0o640)
        running.logged("problem is over code=file_refused")
        assert where(running)[1] == certificate.fingerprint(pem.read_bytes())
    assert not (tmp_path / "work" / "certificate.pem").exists()


def test_the_password_comes_from_a_secret_or_nothing_is_served(tmp_path: Path) -> None:
    config = {**EVERYWHERE, "password_secret": "page", "secrets": {}}
    with Standalone("monitor", config, tmp_path) as running:
        running.logged("code=secret_missing")
        assert "page address" not in running.log
    config["secrets"] = {"page": json.dumps({"password": "of the secret"})}
    with Standalone("monitor", config, tmp_path) as running:
        with client_of(where(running)[0]) as client:
            assert client.post("/sign-in", data={"password": "of the secret"}).status_code == 303
        assert not (tmp_path / "password").exists()
        assert "of the secret" not in running.log


FILES = {"nothing": b"", "no PEM": b"x" * 100, "half a certificate": b"-----BEGIN CERTIFICATE-----\nAAAA\n"}


@pytest.mark.parametrize("content", FILES)
def test_a_damaged_certificate_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "c.pem"
    file.write_bytes(FILES[content])
    file.chmod(0o600)
    with pytest.raises(AccessError, match=r"c\.pem"):
        own(file, ["localhost"])
    with pytest.raises(AccessError, match=r"c\.pem"):
        certificate.given(file, file)


def test_an_old_certificate_is_made_anew_but_not_by_a_clock_that_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, now = tmp_path / "c.pem", time.time()
    made = own(file, ["localhost"])[1]
    ages = {0.0: made, certificate.RENEWED_S - 3600: made, certificate.RENEWED_S + 3600: "", -2 * 86400.0: ""}
    for age, expected in ages.items():
        os.utime(file, (now - age, now - age))
        assert (own(file, ["localhost"])[1] == made) is bool(expected), age
        made = own(file, ["localhost"])[1]
        ages = {key: made if value else "" for key, value in ages.items()}
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert own(file, ["localhost"])[1] == made


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_a_certificate_that_others_may_reach_is_not_taken(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "c.pem"
    own(file, ["localhost"])
    file.chmod(mode)
    with pytest.raises(AccessError, match="0600"):
        own(file, ["localhost"])
