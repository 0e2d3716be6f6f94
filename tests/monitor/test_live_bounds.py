"""Pages that say what no page says, stall or vanish cost others nothing."""

import asyncio
import json
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from edgeml.frames import FrameWriter
from live_support import RECORD, opened, parted, pictured, said, write
from monitor import live
from support import Standalone

ODD = [
    "x" * 9000,
    b"\x00",
    "",
    "x",
    "[]",
    '{"watch": 5}',
    '{"watch": {"a": {"max_width": "x"}}}',
    '{"command": {}}',
    '{"command": {"camera": "door", "command": "reboot"}}',
    '{"follow": [1]}',
    "[" * 5000,
    '{"shown": null, "x": NaN}',
]


@pytest.mark.parametrize("message", ODD)
def test_what_no_page_says_ends_that_page_alone(base: str, message: str | bytes) -> None:
    with opened(base) as page, opened(base) as other:
        page.send(message)
        with pytest.raises(ConnectionClosed):
            for _ in range(5):
                page.recv(10)
        assert other.recv(10)


ODD_WISHES: dict[str, Any] = {
    "no cameras": {"watch": {"../x": {}, "": {}, "x" * 300: {}}},
    "no pipelines": {"follow": ["x" * 300, ""]},
    "no picture": {"shown": {"camera": "no", "frame_id": -5}},
    "many cameras": {"watch": {f"c{number}": {} for number in range(100)}},
    "something else": {"unknown": [1]},
}


@pytest.mark.parametrize("case", ODD_WISHES)
def test_odd_wishes_do_no_harm(base: str, camera: FrameWriter, case: str) -> None:
    with opened(base) as page:
        page.send(json.dumps(ODD_WISHES[case]))
        assert pictured(page, camera)


def test_a_page_that_shows_nothing_gets_two_pictures_and_the_newest_after_its_receipt(
    base: str, camera: FrameWriter
) -> None:
    with opened(base) as page, opened(base) as other:
        pictured(other, camera)
        page.send(json.dumps({"watch": {"door": {"max_width": 960}}}))
        got: list[int] = []
        for _ in range(40):
            last = write(camera)
            time.sleep(0.02)
            try:
                got.append(said(page, "picture", 0)[0]["frame_id"])
            except TimeoutError:
                continue
        assert len(got) == live.UNSHOWN
        page.send(json.dumps({"shown": {"camera": "door", "frame_id": got[0]}}))
        assert said(page, "picture")[0]["frame_id"] >= last - 3


def memory_mb(running: Standalone) -> float:
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1e3


def test_pages_that_stall_or_vanish_cost_others_nothing_and_are_let_go(
    running: Standalone, base: str, camera: FrameWriter
) -> None:
    """Nine that read nothing, or have gone without a word, beside one that sees every picture still."""

    async def scene() -> None:
        stalled = []
        for _ in range(9):
            page = await websockets.connect(f"ws://{base}/ws", proxy=None, max_queue=1, ping_interval=None)
            await page.send(json.dumps({"watch": {"door": {"max_width": 960}}, "follow": ["p"], "records": True}))
            page.transport.pause_reading()
            stalled.append(page)
        async with websockets.connect(f"ws://{base}/ws", proxy=None) as good:
            await good.send(json.dumps({"watch": {"door": {"max_width": 960}}}))
            noise = np.random.default_rng(1).integers(0, 256, (720, 1280, 3), np.uint8)
            seen: set[int] = set()
            before = memory_mb(running)
            for _ in range(100):
                camera.write(noise)
                running.send("edgeml/serial/mcu/record", RECORD | {"record": "x" * 6000})
                with suppress(TimeoutError):
                    while True:
                        message = await asyncio.wait_for(good.recv(), 0.03)
                        if isinstance(message, bytes):
                            seen.add(parted(message)[0]["frame_id"])
                            await good.send(json.dumps({"shown": {"camera": "door", "frame_id": 0}}))
            assert len(seen) > 30
            assert memory_mb(running) < before + 60
        for page in stalled:
            page.transport.abort()

    asyncio.run(scene())
    with opened(base) as page:
        assert pictured(page, camera)


def test_pages_are_bounded(base: str) -> None:
    pages = [connect(f"ws://{base}/ws", proxy=None) for _ in range(live.MAX_PAGES)]
    with pytest.raises(InvalidStatus):
        connect(f"ws://{base}/ws", proxy=None)
    for page in pages:
        page.close()


def test_a_flood_of_messages_waits_and_delays_nobody_else(base: str) -> None:
    """What is read of a page that says as much as it can stays little, and it is not cut off for that."""
    receipt = json.dumps({"shown": {"camera": "x" * 4000, "frame_id": 1}}).encode()
    frame = b"\x81\xfe" + len(receipt).to_bytes(2, "big") + bytes(4) + receipt  # RFC 6455, with a mask of zeros
    with opened(base) as flood, opened(base) as other:
        said(flood, "state")
        sent, rest, end = 0, b"", time.monotonic() + 1.5
        while sent < 10_000 and time.monotonic() < end:
            rest = rest or frame * 100
            try:
                rest = rest[flood.socket.send(rest, socket.MSG_DONTWAIT) :]
                sent += 0 if rest else 100
            except BlockingIOError:  # all buffers on the way are full
                time.sleep(0.01)
        assert sent < 10_000
        assert other.ping().wait(5)
        flood.socket.shutdown(socket.SHUT_RDWR)  # in the middle of a frame
