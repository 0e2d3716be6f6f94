"""A stand-in for AWS Greengrass Stream Manager: it speaks the wire protocol of its SDK, and is not the real server."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import cbor2
from stream_manager.data import Operation, ResponseStatusCode, StrategyOnFull

TOKEN = "let-me-in"
OVERHEAD = 24  # bytes that a message takes besides its own
Faults = Callable[[Operation], bytes | Iterator[bytes] | int | None]  # what to say instead, or the answer's status


def frame(operation: Operation, message: Any) -> bytes:
    body: bytes = cbor2.dumps(message)
    return (len(body) + 1).to_bytes(4, "big") + bytes([operation.value]) + body


class StandIn:
    """Streams by name. What is taken at once is kept in `streams`, how a stream was made in `definitions`."""

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self.streams: dict[str, list[bytes]] = {}
        self.definitions: dict[str, dict[str, Any]] = {}
        self.asked: list[Operation] = []
        self.hellos: list[dict[str, Any]] = []
        self.fault: Faults = lambda operation: None
        self._listener = listener
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        self._listener.close()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock = self._listener.accept()[0]
                self._open.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with closing(sock), suppress(OSError), sock.makefile("rb") as reader:
            sock.settimeout(10)
            assert reader.read(1) in {b"\x01", b""}
            while length := reader.read(4):
                operation, *body = reader.read(int.from_bytes(length, "big"))
                self._take(sock, Operation(operation), cbor2.loads(bytes(body)))

    def _take(self, sock: socket.socket, operation: Operation, request: dict[str, Any]) -> None:
        self.asked.append(operation)
        fault = self.fault(operation)
        if isinstance(fault, bytes):
            sock.sendall(fault)
            return
        if isinstance(fault, Iterator):
            for part in fault:
                sock.sendall(part)
            return
        status = ResponseStatusCode(fault) if fault is not None else self._status(operation, request)
        answer = {"requestId": request["requestId"], "status": status.value, "sequenceNumber": 0}
        if operation is Operation.Connect:
            sock.sendall(b"\x01")
            answer |= {"protocolVersion": request["protocolVersion"], "serverVersion": "stand-in"}
        if status is not ResponseStatusCode.Success:
            answer["errorMessage"] = f"no, {TOKEN}"
        sock.sendall(frame(Operation[f"{operation.name}Response"], answer))

    def _status(self, operation: Operation, request: dict[str, Any]) -> ResponseStatusCode:
        if operation is Operation.Connect:
            self.hellos.append(request)
            known = request.get("authToken") == TOKEN
            return ResponseStatusCode.Success if known else ResponseStatusCode.Unauthorized
        if operation is Operation.CreateMessageStream:
            made = request["definition"]
            self.definitions[made["name"]], self.streams[made["name"]] = made, []
            return ResponseStatusCode.Success
        return self._append(request["name"], request["payload"])

    def _append(self, name: str, payload: bytes) -> ResponseStatusCode:
        if name not in self.streams:
            return ResponseStatusCode.ResourceNotFound
        kept, made = self.streams[name], self.definitions[name]
        while sum(len(one) + OVERHEAD for one in (*kept, payload)) > made["maxSize"]:
            if made["strategyOnFull"] == StrategyOnFull.RejectNewData.value:
                return ResponseStatusCode.InvalidRequest
            del kept[0]
        kept.append(payload)
        return ResponseStatusCode.Success


@contextmanager
def stand_in(port: int = 0) -> Iterator[StandIn]:
    with socket.create_server(("127.0.0.1", port)) as listener:
        running = StandIn(listener)
        try:
            yield running
        finally:
            running.stop()
