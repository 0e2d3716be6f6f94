"""A connection of edgeml.http: http.client's own, whose socket looks at the clock and counts what arrives."""

import base64
import http.client
import io
import queue
import select
import socket
import ssl
import threading
import time
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

MAX_HEAD_BYTES = 64 << 10  # status lines and headers of one answer, those of 100 Continue and of a proxy included


class Timed:
    """A socket as http.client uses it; each call looks at the clock and counts what arrives."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.deadline, self.stall_s, self.left = 0.0, 0.0, 0

    def bound(self, deadline: float, stall_s: float, left: int) -> None:
        """`left` bytes may arrive from now on, framing included."""
        self.deadline, self.stall_s, self.left = deadline, stall_s, left

    def makefile(self, mode: str, buffering: int | None = None) -> io.BufferedReader:
        return io.BufferedReader(_Raw(self))

    def sendall(self, data: Any) -> None:
        view = memoryview(data)
        while view:
            self._wait()
            view = view[self.sock.send(view) :]

    def receive(self, buffer: Any) -> int:
        self._wait()
        count = self.sock.recv_into(buffer)
        self.left -= count
        if self.left < 0:
            raise http.client.HTTPException("too many bytes for an answer")
        return count

    def close(self) -> None:
        """http.client closes before the last answer is read; `Connection.end` is the real one."""

    def _wait(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.sock.settimeout(min(left, self.stall_s))


class _Raw(io.RawIOBase):
    def __init__(self, timed: Timed) -> None:
        self._timed = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._timed.receive(buffer)


class Connection(http.client.HTTPConnection):
    """To a server, through a proxy where there is one, and with TLS for https."""

    def __init__(self, place: tuple[str, str, int], proxy: str | None, context: ssl.SSLContext | None) -> None:
        scheme, host, port = place
        through = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else None
        super().__init__(through.hostname or "" if through else host, (through.port or 3128) if through else port)
        self._tls = (context or ssl.create_default_context()) if scheme == "https" else None
        self._server = host
        self.timed: Timed | None = None
        self.absolute = through is not None and self._tls is None  # a proxy wants whole URLs
        credentials = _basic(through) if through else {}
        self.proxy_headers = credentials if self.absolute else {}
        if through is not None and self._tls is not None:
            self.set_tunnel(host, port, credentials)

    def open(self, until: float, stall_s: float) -> None:
        """Connects by `until` on the monotonic clock. Raises OSError or http.client.HTTPException."""
        sock = _dialled(self.host, self.port, until)
        self.timed = self.sock = Timed(sock)
        try:
            self.timed.bound(until, stall_s, MAX_HEAD_BYTES)
            if self._tunnel_host:  # type: ignore[attr-defined]
                self._tunnel()  # type: ignore[attr-defined]
            if self._tls is not None:
                sock.settimeout(max(0.001, until - time.monotonic()))
                self.timed.sock = self._tls.wrap_socket(sock, server_hostname=self._server)
        except BaseException:
            self.end()
            raise

    def rests(self) -> bool:
        """Whether a kept connection is still open: nothing has arrived on it, not even its end."""
        if self.timed is None:
            return False
        poll = select.poll()
        poll.register(self.timed.sock, select.POLLIN)
        return not poll.poll(0)

    def end(self) -> None:
        if self.timed is not None:
            self.timed.sock.close()
        self.close()


def _dialled(host: str, port: int, until: float) -> socket.socket:
    """A connected socket, of the first address that answers. Raises OSError."""
    last: OSError = TimeoutError("timed out")
    addresses = _addresses(host, port, until)
    for left, (family, kind, protocol, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(0.001, (until - time.monotonic()) / left))  # the first may lead nowhere
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            last = error
    raise last


def _addresses(host: str, port: int, until: float) -> list[Any]:
    """By a thread, since the resolver has no timeout that we could set. Raises OSError."""
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=resolve, name="resolve", daemon=True).start()
    try:
        answer = found.get(timeout=max(0.001, until - time.monotonic()))
    except queue.Empty:
        raise TimeoutError("the name was not resolved in time") from None
    if isinstance(answer, BaseException):
        raise OSError(str(answer)) from answer
    return list(answer)


def _basic(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
