"""Who floods the door keeps nobody out: by connections, handshakes or attempts to sign in, with TLS and without."""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from monitor import door
from monitor.access import Access
from monitor.attempts import BURST, EACH_S, FREE, MAX_PEERS, Attempts
from monitor.door import peer_of
from monitor.signing import BROWSER
from monitor_support import Clock, as_another_user, client_of, ended, get, serving
from support import eventually

SCHEMES = {"http": False, "https": True}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_flood_of_connections_ends_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 8)
    with serving(tmp_path, tls=SCHEMES[scheme]) as address, ExitStack() as stack:
        before, ours = descriptors(address, scheme), 24
        for _ in range(ours):
            stack.enter_context(socket.create_connection(address, timeout=10))
            assert get(address, "/healthz", scheme).status_code == 200
        eventually(lambda: psutil.Process().num_fds() - before - ours <= 9, 10, "the descriptors of those that went")


def test_who_has_signed_in_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 8)
    with serving(tmp_path, access=Access("the password"), tls=SCHEMES[scheme]) as address, ExitStack() as stack:
        client = stack.enter_context(client_of(f"{scheme}://{address[0]}:{address[1]}"))
        assert client.post("/sign-in", data={"password": "the password"}).status_code == 303
        assert client.get("/").status_code != 302
        (mine,) = sockets_to(address)
        for _ in range(24):
            stack.enter_context(socket.create_connection(address, timeout=10))
        eventually(lambda: get(address, "/healthz", scheme), what="an answer")
        assert client.get("/").status_code != 302
        assert mine in sockets_to(address)


def test_a_handshake_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HANDSHAKE_S", 0.3)
    hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    outside = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(*hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        outside.do_handshake()
    beginning = hello[1].read()
    with serving(tmp_path, tls=True) as address:
        before = descriptors(address, "https")
        for said in (b"", beginning[:7], beginning, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70000):
            with socket.create_connection(address, timeout=10) as peer:
                try:
                    peer.sendall(said)
                    assert ended(peer), said[:10]
                except BrokenPipeError:
                    pass
        eventually(lambda: psutil.Process().num_fds() <= before, 10, "their descriptors")
        assert get(address, "/healthz", "https").status_code == 200


def test_a_goodbye_without_an_answer_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "GOODBYE_S", 0.3)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with serving(tmp_path, tls=True) as address:
        before = descriptors(address, "https")
        with context.wrap_socket(socket.create_connection(address, timeout=10)) as peer:
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            eventually(lambda: psutil.Process().num_fds() <= before + 1, 10, "its descriptor")  # the client's own


OLD = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]


@pytest.mark.parametrize("version", OLD, ids=[version.name for version in OLD])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(tmp_path: Path, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        serving(tmp_path, tls=True) as address,
        socket.create_connection(address, timeout=10) as peer,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(peer)


WRONG = """
import sys, urllib.request, urllib.error
answers = []
for _ in range(int(sys.argv[2])):
    try:
        urllib.request.urlopen(sys.argv[1] + "/sign-in", b"password=not+the+password", timeout=20)
    except urllib.error.HTTPError as error:
        answers.append(error.code)
print(*answers)
"""


def test_a_browser_that_has_signed_in_before_has_attempts_of_its_own(tmp_path: Path) -> None:
    """Whoever shares its address, or its user, may use up all of theirs."""
    with serving(tmp_path, access=Access("the password")) as (host, port):
        url = f"http://{host}:{port}"
        with client_of(url) as known, client_of(url) as other:
            assert known.post("/sign-in", data={"password": "the password"}).status_code == 303
            known.post("/sign-out")
            other.cookies.set(BROWSER, "of ones own making")
            wrong = [other.post("/sign-in", data={"password": "wrong words"}).status_code for _ in range(BURST + 1)]
            assert wrong == [401] * BURST + [429]
            assert known.post("/sign-in", data={"password": "the password"}).status_code == 303
            wrong = [known.post("/sign-in", data={"password": "wrong words"}).status_code for _ in range(BURST + 1)]
            assert wrong == [401] * BURST + [429]


@as_root
def test_another_user_uses_up_his_own_attempts_alone(tmp_path: Path) -> None:
    with serving(tmp_path, access=Access("the password")) as address:
        url = f"http://{address[0]}:{address[1]}"
        answers = as_another_user(WRONG, url, BURST + 5).split()
        assert answers[:BURST] == ["401"] * BURST
        assert "429" in answers
        assert httpx.post(f"{url}/sign-in", data={"password": "the password"}, trust_env=False).status_code == 303


ORPHANS = """
import socket, sys
for _ in range(int(sys.argv[2])):
    peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    peer.sendall(b"POST /sign-in HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 20\\r\\n\\r\\npassword=wrong+words")
    peer.close()
"""


@as_root
def test_a_closed_socket_is_not_roots(tmp_path: Path) -> None:
    """The kernel shows such sockets as those of user 0, whose attempts a stranger could so use up."""
    with serving(tmp_path, access=(access := Access("the password"))) as address:
        as_another_user(ORPHANS, address[1], BURST + 20)
        url = f"http://{address[0]}:{address[1]}/sign-in"
        assert httpx.post(url, data={"password": "the password"}, trust_env=False).status_code == 303
        assert access.attempts.begin("user root")


@as_root
def test_another_users_connections_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 8)
    crowd = "import socket, sys; a = [socket.create_connection(('127.0.0.1', int(sys.argv[1]))) for _ in range(40)]"
    with serving(tmp_path) as address, socket.create_connection(address, timeout=10) as mine:
        as_another_user(crowd + "; [each.recv(1) for each in a[:30]]", address[1])
        mine.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert mine.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_whose_a_connection_within_the_machine_is(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as listening:
        try:
            listening.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} here")
        listening.listen()
        with socket.socket(family) as mine:
            mine.connect(listening.getsockname())
            connection, remote = listening.accept()
            with connection:
                assert peer_of(remote, connection.getsockname()) == f"user {psutil.Process().username()}"
                mine.close()
                assert peer_of(remote, connection.getsockname()).startswith("address ")


PEERS = {
    "192.0.2.7": "address 192.0.2.7",
    "::ffff:192.0.2.7": "address 192.0.2.7",
    "2001:db8::1": "address 2001:db8::/64",
    "2001:db8::ffff:1": "address 2001:db8::/64",
    "fe80::1%eth0": "address fe80::/64",
}


@pytest.mark.parametrize("remote", PEERS)
def test_an_address_is_a_peer_and_of_ipv6_its_network(remote: str) -> None:
    assert peer_of((remote, 5), ("::", 8484)) == PEERS[remote]


def tried(attempts: Attempts, name: str, *, right: bool = False) -> bool:
    began = attempts.begin(name)
    if began:
        attempts.end(name, right=right)
    return began


def test_attempts_of_a_peer_are_limited_and_come_back() -> None:
    attempts = Attempts(clock := Clock())
    assert [tried(attempts, "a") for _ in range(BURST + 2)] == [True] * BURST + [False] * 2
    clock.now += EACH_S
    assert [tried(attempts, "a"), tried(attempts, "a")] == [True, False]


def test_a_right_attempt_does_not_count() -> None:
    attempts = Attempts(Clock())
    assert all(tried(attempts, "a", right=True) for _ in range(20 * BURST))
    assert [tried(attempts, "a") for _ in range(BURST + 1)] == [True] * BURST + [False]


def test_one_attempt_of_a_peer_at_a_time() -> None:
    attempts = Attempts(Clock())
    assert attempts.begin("a")
    assert not attempts.begin("a")
    assert attempts.begin("b")
    attempts.end("a", right=False)
    assert attempts.begin("a")


@pytest.mark.parametrize("others", [1, 10, MAX_PEERS // 2])
def test_others_however_many_leave_a_peer_its_first_attempts(others: int) -> None:
    attempts = Attempts(clock := Clock())
    for _ in range(20):
        for number in range(others):
            tried(attempts, f"other {number}")
        clock.now += 1
    assert [tried(attempts, "owner") for _ in range(FREE)] == [True] * FREE


def test_all_attempts_together_are_limited_and_their_table_too() -> None:
    attempts, hour = Attempts(clock := Clock()), 0
    for second in range(3600):
        clock.now += 1
        hour += sum(tried(attempts, f"{second * 4 + number}") for number in range(4))  # always from another address
    assert hour <= FREE * MAX_PEERS + 1800 + 60
    assert len(attempts) <= MAX_PEERS + 1


@pytest.fixture
def flooded() -> Iterator[Attempts]:
    attempts = Attempts(Clock())
    for number in range(MAX_PEERS):
        tried(attempts, str(number))
    yield attempts


def test_who_finds_no_place_shares_one(flooded: Attempts) -> None:
    assert [tried(flooded, f"new {number}") for number in range(BURST + 1)] == [True] * BURST + [False]


def descriptors(address: tuple[str, int], scheme: str) -> int:
    """Of this process, once the server is there with all of its own."""
    assert get(address, "/healthz", scheme).status_code == 200
    return int(psutil.Process().num_fds())


def sockets_to(address: tuple[str, int]) -> set[int]:
    """Local ports of this process' connections to `address`."""
    found = psutil.Process().net_connections("tcp")
    return {each.laddr.port for each in found if each.raddr == address and each.status == psutil.CONN_ESTABLISHED}
