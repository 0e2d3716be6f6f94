"""Serial bytes to lines, beside what the operating system and bytes.split can do: a pty, 69-byte lines."""

import os
import pty
import subprocess
import sys
import time
import tty
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Row, interleave
from serial_scraper.lines import LineSplitter
from serial_scraper.link import Link

LINES = 100_000
LINE = b"    face and more text (0.996094) [ x: 8, y: 16, width: 88, height: 8 ]"[:68] + b"\n"
BAR = 300_000
_WRITER = """
import os, sys
left = int(sys.argv[2])
block = bytes.fromhex(sys.argv[3]) * 200
while left:
    left -= os.write(int(sys.argv[1]), block[: min(left, len(block))])
"""


def run() -> list[Row]:
    figures = interleave({"ours": lambda: _rate(_ours), "limit": lambda: _rate(_limit)})
    ratio = figures["ours"] / figures["limit"]
    return [
        Row(
            bench="serial_split",
            metric="lines read and split",
            unit="lines/s",
            value=figures["ours"],
            limit=figures["limit"],
            ratio=ratio,
            bar=f">= {BAR:,} lines/s; limit: os.read + split",
            ok=figures["ours"] >= BAR,
        )
    ]


def _rate(reader: Callable[[int, Path], None]) -> float:
    """Lines per second while another process writes them to the other end."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    command = [sys.executable, "-c", _WRITER, str(master), str(LINES * len(LINE)), LINE.hex()]
    try:
        with subprocess.Popen(command, pass_fds=[master]) as writer:
            began = time.perf_counter()
            reader(slave, Path(os.ttyname(slave)))
            elapsed = time.perf_counter() - began
            if writer.wait(timeout=10):
                raise RuntimeError("the writer failed")
    finally:
        os.close(master)
        os.close(slave)
    return LINES / elapsed


def _limit(slave: int, path: Path) -> None:
    seen, partial = 0, b""
    while seen < LINES:
        lines = (partial + os.read(slave, 65_536)).split(b"\n")
        partial = lines.pop()
        seen += len(lines)


def _ours(slave: int, path: Path) -> None:
    link, splitter, seen = Link(path, baud=115_200, reset=True), LineSplitter(16_384), 0
    while seen < LINES:
        seen += len(splitter.feed(link.read(5.0)))
    link.close()
