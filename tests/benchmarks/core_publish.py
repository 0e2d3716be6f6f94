"""Publishes per second that the local Greengrass core takes on its IPC socket.

The core runs in a process of its own. The client sends frames encoded beforehand, 256 in flight, and only counts the
answers. The limit is a bare asyncio server that parses each frame's length and answers with a ready frame. The real
client's rate, one call after another and pipelined, is shown beside: it is bound by the client.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.harness import Row, interleave
from localdev.core.rpc import MessageType
from localdev.core.wire import Header, HeaderType, encode

PUBLISHES = 20_000
IN_FLIGHT = 256
CALLS = 1_000
PAYLOAD_BYTES = 100
BAR = 15_000
TIMEOUT_SECONDS = 30.0

_CORE = """
import sys
from pathlib import Path
from localdev.core import LocalCore
policy = {"aws.greengrass.ipc.pubsub": {"all": {"operations": ["*"], "resources": ["*"]}}}
with LocalCore(Path(sys.argv[1])) as core:
    print(core.socket, core.add_principal("bench.Publisher", policy), flush=True)
    sys.stdin.read()
"""
_BARE = """
import asyncio, sys
ANSWER = bytes.fromhex(sys.argv[2])
class Bare(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, bytearray()
    def data_received(self, data):
        self.buffer += data
        position, count = 0, 0
        while len(self.buffer) - position >= 4:
            total = int.from_bytes(self.buffer[position : position + 4], "big")
            if len(self.buffer) - position < total:
                break
            position += total
            count += 1
        del self.buffer[:position]
        self.transport.write(ANSWER * count)
async def main():
    await asyncio.get_running_loop().create_unix_server(Bare, sys.argv[1] + "/bare.socket")
    print(sys.argv[1] + "/bare.socket", "-", flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


def run() -> list[Row]:
    """Rows for the raw client (with the bar) and for the real one (without)."""
    answer = _application_frame(1, {"service-model-type": "aws.greengrass#PublishToTopicResponse"}, b"{}")
    with (
        tempfile.TemporaryDirectory() as folder,
        _server(_CORE, folder) as core,
        _server(_BARE, folder, answer.hex()) as bare,
    ):
        figures = interleave(
            {
                "core": lambda: _raw_rate(*core),
                "bare": lambda: _raw_rate(*bare),
                "one by one": lambda: _client_rate(*core, in_flight=1),
                "pipelined": lambda: _client_rate(*core, in_flight=64),
            }
        )
    raw, limit = figures["core"], figures["bare"]
    rows = [_row("raw client, 256 in flight", raw, limit, f">= {BAR:,}/s", raw >= BAR)]
    for name in ("one by one", "pipelined"):
        rows.append(_row(f"awsiotsdk client, {name}", figures[name], raw, "shown only", True))
    return rows


def _row(metric: str, value: float, limit: float, bar: str, ok: bool) -> Row:
    return Row(
        bench="core_publish",
        metric=metric,
        unit="publishes/s",
        value=value,
        limit=limit,
        ratio=value / limit,
        bar=bar,
        ok=ok,
    )


@contextmanager
def _server(code: str, *arguments: str) -> Iterator[tuple[str, str]]:
    """A server process; gives its socket and a token. It ends when its standard input does."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        path, token = process.stdout.readline().split()
        yield path, token
    finally:
        process.communicate(timeout=TIMEOUT_SECONDS)


def _application_frame(stream: int, headers: dict[str, str], payload: bytes) -> bytes:
    every: dict[str, Header] = {
        ":message-type": (HeaderType.INT32, MessageType.APPLICATION_MESSAGE),
        ":message-flags": (HeaderType.INT32, 0),
        ":stream-id": (HeaderType.INT32, stream),
        ":content-type": (HeaderType.STRING, "application/json"),
    }
    return encode(every | {name: (HeaderType.STRING, text) for name, text in headers.items()}, payload)


def _publish_frames() -> list[bytes]:
    headers = {
        "service-model-type": "aws.greengrass#PublishToTopicRequest",
        "operation": "aws.greengrass#PublishToTopic",
    }
    message = {"jsonMessage": {"message": {"data": "x" * PAYLOAD_BYTES}}}
    payload = json.dumps({"topic": "bench/topic", "publishMessage": message}).encode()
    return [_application_frame(stream, headers, payload) for stream in range(1, PUBLISHES + 1)]


_FRAMES: list[bytes] = []


def _raw_rate(path: str, token: str) -> float:
    """Publishes per second of one connection that keeps IN_FLIGHT calls open."""
    if not _FRAMES:
        _FRAMES.extend(_publish_frames())
    connect: dict[str, Header] = {
        ":message-type": (HeaderType.INT32, MessageType.CONNECT),
        ":message-flags": (HeaderType.INT32, 0),
        ":stream-id": (HeaderType.INT32, 0),
        ":version": (HeaderType.STRING, "0.1.0"),
    }
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT_SECONDS)
        client.connect(path)
        client.sendall(encode(connect, json.dumps({"authToken": token}).encode()))
        client.recv(4096)
        sent = answered = 0
        buffer = bytearray()
        started = time.perf_counter()
        while answered < PUBLISHES:
            batch = min(IN_FLIGHT - (sent - answered), PUBLISHES - sent)
            if batch:
                client.sendall(b"".join(_FRAMES[sent : sent + batch]))
                sent += batch
            buffer += client.recv(262_144)
            answered += _take_frames(buffer)
        return PUBLISHES / (time.perf_counter() - started)


def _take_frames(buffer: bytearray) -> int:
    """Removes whole frames from the buffer; the answer is their number."""
    position = count = 0
    while len(buffer) - position >= 4:
        total = int.from_bytes(buffer[position : position + 4], "big")
        if len(buffer) - position < total:
            break
        position += total
        count += 1
    del buffer[:position]
    return count


def _client_rate(path: str, token: str, *, in_flight: int) -> float:
    """Publishes per second of the real client."""
    from awsiot import greengrasscoreipc
    from awsiot.greengrasscoreipc import model
    from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

    ipc = greengrasscoreipc.connect(ipc_socket=path, authtoken=token, timeout=TIMEOUT_SECONDS)
    client = GreengrassCoreIPCClientV2(client=ipc, executor=None)
    message = model.PublishMessage(json_message=model.JsonMessage(message={"data": "x" * PAYLOAD_BYTES}))
    pending: list[Any] = []
    started = time.perf_counter()
    for _ in range(CALLS):
        if len(pending) >= in_flight:
            pending.pop(0).result(TIMEOUT_SECONDS)
        pending.append(client.publish_to_topic_async(topic="bench/topic", publish_message=message))
    for future in pending:
        future.result(TIMEOUT_SECONDS)
    rate = CALLS / (time.perf_counter() - started)
    client.close().result(TIMEOUT_SECONDS)
    return rate
