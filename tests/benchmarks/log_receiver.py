"""The benchmarks' receiver: a stand-in for CloudWatch Logs, in a process of its own, as fast as a loopback socket.

It speaks just enough HTTP for PutLogEvents, keeps nothing but counts, and holds one request at a time in memory.
"""

import multiprocessing
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

MAX_REQUEST = 8 << 20
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_STAMP = re.compile(rb" sent=(\d+\.\d+) ")
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Received:
    """Events so far, when the first and the newest came (time.monotonic), seconds from ` sent=<time> ` to receipt."""

    events: int
    first: float
    last: float
    lags: list[float]


class Receiver:
    """Handle of the receiver's process."""

    def __init__(self, port: int, control: "Connection[None, Received]") -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._control = control

    def received(self) -> Received:
        self._control.send(None)
        if not self._control.poll(10):
            raise TimeoutError("the receiver does not answer")
        return self._control.recv()

    def wait_for(self, events: int, timeout: float) -> Received:
        deadline = time.monotonic() + timeout
        while (received := self.received()).events < events:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{received.events} of {events} events in {timeout} s")
            time.sleep(0.01)
        return received


@contextmanager
def running(*, stamps: bool = False) -> Iterator[Receiver]:
    """A receiver for the duration of the block. `stamps`: collect the lags of stamped lines."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, stamps), daemon=True)
    process.start()
    try:
        if not ours.poll(10):
            raise TimeoutError("the receiver did not start")
        yield Receiver(ours.recv(), ours)
    finally:
        process.terminate()
        process.join(5)
        ours.close()


def _serve(control: "Connection[object, object]", stamps: bool) -> None:
    """One thread: connections are few, and requests come one after the other."""
    import selectors

    received = Received(0, 0.0, 0.0, [])
    listener = socket.create_server(("127.0.0.1", 0))
    control.send(listener.getsockname()[1])
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    connection.settimeout(10)
                    selector.register(connection, selectors.EVENT_READ)
                elif key.fileobj is control:
                    control.recv()
                    control.send(received)
                elif isinstance(key.fileobj, socket.socket) and not _answer(key.fileobj, received, stamps):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()


def _answer(connection: socket.socket, received: Received, stamps: bool) -> bool:
    """Take one request; False if the peer is gone."""
    data = bytearray(connection.recv(65536))
    if not data:
        return False
    while (head_end := data.find(b"\r\n\r\n")) < 0:
        data += connection.recv(65536)
    match = _LENGTH.search(data, 0, head_end)
    size = int(match[1]) if match else 0
    if size > MAX_REQUEST:
        return False
    body = bytearray(size)
    had = len(data) - head_end - 4
    body[:had] = data[head_end + 4 :]
    view = memoryview(body)[had:]
    while view:
        count = connection.recv_into(view)
        if not count:
            return False
        view = view[count:]
    now = time.monotonic()
    received.first = received.first or now
    received.last = now
    received.events += body.count(b'{"timestamp":')
    if stamps:
        wall = time.time()
        received.lags += [wall - float(stamp) for stamp in _STAMP.findall(body)]
    connection.sendall(_ANSWER)
    return True
