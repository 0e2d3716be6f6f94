"""HTTP servers as nobody wants them: each is a function of an accepted socket, served by a thread until the end."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\n"
Behaviour = Callable[[socket.socket, threading.Event], None]


@dataclass
class RawServer:
    behave: Behaviour
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    url: str = ""


def sends(data: bytes) -> Behaviour:
    """The same bytes for everyone, and the connection's end."""
    return lambda sock, ended: sock.sendall(data)


def endless(start: bytes, again: bytes, pause_s: float = 0.0) -> Behaviour:
    """`again` and again, until the client goes or the test is over."""

    def behave(sock: socket.socket, ended: threading.Event) -> None:
        sock.sendall(start)
        while not ended.wait(pause_s):
            sock.sendall(again)

    return behave


# By name: what a server may do for ever, and what it does in one go.
ENDLESS = {
    "silence": lambda sock, ended: ended.wait(30),
    "status trickles": endless(b"", b"H", 0.02),
    "headers trickle": endless(OK, b"a", 0.02),
    "body trickles": endless(OK + b"Content-Length: 100000\r\n\r\n", b"1", 0.02),
    "body without a length trickles": endless(OK + b"\r\n", b"1", 0.02),
    "chunks trickle": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n1\r\n", 0.02),
    "100 Continue trickles": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),
    "100 Continue floods": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "headers flood": endless(OK, b"a: b\r\n" * 100),
    "one header floods": endless(OK + b"a: ", b"b" * 4096),
    "a chunk's header floods": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 4096),
    "trailers flood": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n", b"a: b\r\n" * 100),
    "body floods": endless(OK + b"\r\n", b"1" * 4096),
}
WRONG = {
    "not HTTP": sends(b"220 mail.example.org ESMTP\r\n"),
    "nothing": sends(b""),
    "cut short": sends(OK + b"Content-Length: 100\r\n\r\n12"),
    "a chunk cut short": sends(OK + b"Transfer-Encoding: chunked\r\n\r\n64\r\n12"),
    "a wrong chunk": sends(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "announced too large": sends(OK + b"Content-Length: 99999999999\r\n\r\n"),
    "binary": sends(bytes(range(256)) * 10),
}


@contextlib.contextmanager
def raw_server(behave: Behaviour, context: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    """Listens on 127.0.0.1. `behave` may be changed between two requests; each gets a thread."""
    server, ended = RawServer(behave), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    server.url = f"{'https' if context else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
    threads: list[threading.Thread] = []

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) if context else sock as sock:
            sock.settimeout(5)
            while (request := _head(sock)) and not ended.is_set():
                server.requests.append(request)
                server.behave(sock, ended)
                if b"keep-alive" not in request.lower():
                    return

    def accept() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                sock, _ = listener.accept()
                server.connections += 1
                threads.append(threading.Thread(target=serve, args=[sock]))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield server
    finally:
        ended.set()
        accepting.join()
        listener.close()
        for thread in threads:
            thread.join()


def _head(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return b""
        data += piece
    return data
