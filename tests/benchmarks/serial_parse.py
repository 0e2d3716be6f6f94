"""Lines of Edge Impulse firmware to results, beside splitting the same bytes and decoding each line."""

import time
from functools import partial

from benchmarks.harness import Row, interleave
from localdev.simulators.dialects import Inference, Style, render
from serial_scraper import lines, records

BLOCKS = 4_000
CHUNK_BYTES = 4_096  # what a pty or UART driver hands over at once
BAR = 100_000


def run() -> list[Row]:
    rows = []
    for dialect in ("D1", "D2", "D6"):
        capture = _capture(dialect)
        figures = interleave({"ours": partial(_ours, capture), "limit": partial(_limit, capture)}, rounds=3)
        rows.append(
            Row(
                bench="serial_parse",
                metric=f"result lines parsed, {dialect}",
                unit="lines/s",
                value=figures["ours"],
                limit=figures["limit"],
                ratio=figures["ours"] / figures["limit"],
                bar=f">= {BAR:,} lines/s; limit: split + decode",
                ok=figures["ours"] >= BAR,
            )
        )
    return rows


def _capture(dialect: str) -> bytes:
    box = {"label": "face", "value": 0.99609, "x": 8, "y": 16, "width": 8, "height": 8}
    scores = {f"class {number}": 0.125 for number in range(8)}
    result = {"bounding_boxes": [box] * 8} if dialect == "D2" else {"classification": scores}
    inference = Inference({"dsp": 2, "classification": 14, "anomaly": 0}, result)
    return render(inference, dialect, Style("\r\n")).encode() * BLOCKS


def _chunks(capture: bytes) -> list[bytes]:
    return [capture[start : start + CHUNK_BYTES] for start in range(0, len(capture), CHUNK_BYTES)]


def _limit(capture: bytes) -> float:
    began, seen, partial = time.perf_counter(), 0, b""
    for chunk in _chunks(capture):
        *whole, partial = (partial + chunk).split(b"\n")
        seen += len([line.decode() for line in whole])
    return seen / (time.perf_counter() - began)


def _ours(capture: bytes) -> float:
    splitter, form = lines.LineSplitter(16_384), records.EdgeImpulse(lambda line: None)
    began, seen, found = time.perf_counter(), 0, 0
    for chunk in _chunks(capture):
        whole = splitter.feed(chunk)
        seen += len(whole)
        found += len(form.feed(lines.text(line)[0] for line in whole))
    found += len(form.flush())
    elapsed = time.perf_counter() - began
    if found != BLOCKS:
        raise RuntimeError(f"{found} results of {BLOCKS}")
    return seen / elapsed
