"""What tests of edgeml.Monitor share: a page's server in this process, and what its clients do."""

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import httpx

from edgeml.messages import Problem
from monitor.access import Access
from monitor.app import application
from monitor.certificate import own
from monitor.server import Server
from monitor.state import State
from monitor.vitals.limits import CheckName
from support import Standalone, eventually

# On a free port, and what the machine that runs the test lacks is no problem.
QUIET: dict[str, Any] = {"port": 0, "vitals": {"skip": list(get_args(CheckName))}}


class Clock:
    """Monotonic time that stands still until it is told otherwise."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def serving(
    static: Path, *problems: Problem, access: Access | None = None, tls: bool = False
) -> Iterator[tuple[str, int]]:
    """The address of a server of `static`."""
    context = own(static.parent / f"{static.name}.pem", ["127.0.0.1", "localhost"])[0] if tls else None
    app = application(static, State("thing", "1", lambda: problems), access)
    with Server(app, 0, tls=context) as running:
        thread = threading.Thread(target=running.run)
        thread.start()
        try:
            url = httpx.URL(running.address)
            yield url.host, url.port or 0
        finally:
            running.ask_to_stop()
            thread.join(10)
            assert not thread.is_alive()


def address_of(running: Standalone) -> str:
    """Where the page of a Monitor is, without the slash at its end."""
    found = eventually(lambda: re.search(r"address=(https?://\S+)/", running.log), what="the page's address")
    assert found is not None
    return found[1]


def get(address: tuple[str, int], path: str, scheme: str = "http") -> httpx.Response:
    with client_of(f"{scheme}://{address[0]}:{address[1]}") as client:
        return client.get(path)


def client_of(base: str, **options: Any) -> httpx.Client:
    """Without the certificates of the system, which take 20 ms to read: a monitor has its own or none.

    It ends no connection by itself: httpx would after five seconds without a request, as pass on a busy machine.
    """
    options.setdefault("limits", httpx.Limits(keepalive_expiry=None))
    return httpx.Client(base_url=base, trust_env=False, timeout=10, verify=False, **options)  # noqa: S501


def ended(peer: socket.socket) -> bool:
    """Whether the other side ends the connection before the peer's own timeout."""
    try:
        while peer.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def as_another_user(program: str, *arguments: object) -> str:
    """What a Python program says that another user of this machine runs; only root can start it."""
    command = ["/usr/bin/python3", "-I", "-c", program, *map(str, arguments)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=60, user="nobody", cwd="/"
    ).stdout
