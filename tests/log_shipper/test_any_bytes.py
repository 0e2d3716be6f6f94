"""Whatever the bytes of a log are, its lines come out: parsed, batched and encoded, none lost, none twice."""

import json
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest import TestCase

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeml.config import load
from edgeml.errors import ConfigError
from edgeml.health import Health
from edgeml.messages import encode
from log_shipper import copier, emf, parse
from log_shipper.batch import BUDGET, MAX_MESSAGE, OVERHEAD, Batch, pieces, whole_lines
from log_shipper.checkpoint import Checkpoint
from log_shipper.config import Config
from log_shipper.emf import HealthLog
from log_shipper.entry import entry_of
from log_shipper.files import FileSource
from log_shipper.identity import Seen
from log_shipper.parse import Parser
from log_shipper.records import Records
from log_shipper.sinks.iot_core import record_of
from log_shipper.times import EARLIEST_MS, Window

NOW = 1_795_255_200
ARRIVAL = NOW * 1000 - 5
COPIER = "2026-11-21T10:00:00.000Z [WARN] (Copier) a: stderr. {}. {{scriptName=x, serviceName=a}}"
NASTY = [
    *("²026-11-21T10:00:00Z [INFO] x", "٢٠٢٦-11-21T10:00:00Z", "2026-11-21T1٠:00:00Z [INFO]"),
    *("0001-01-01T00:00:00Z [INFO] Go", "9999-12-31T23:59:59-14:00 [INFO] x", "1969-12-31T23:59:59Z [INFO] x"),
    *("2026-02-30T10:00:00Z [INFO] x", "2026-11-21T10:00:60Z x", "2026-11-21T10:00:00+99:99 x"),
    *("1970-01-01 00:01:02 x", '{"ts":[]}', "{}", "{"),
    *('{"a":' * 1500, "[" * 1500, '{"timestamp":' + "9" * 1500 + "}", '{"level":"INFO","timestamp":²²²²²²²²²²²²²}'),
    *('{"level":"INFO","timestamp":1649677588²97}', '{"ts":1e999}', '{"ts":NaN}', '{"ts":-1}', '{"ts":true}'),
    *('{"time":"\\ud800"}', '{"time":"\\u12', '{"timestamp":null,"timestamp":5}', '{"' + "k" * 1500 + '":1}'),
    *('{"_aws":5,"CloudWatchMetrics":1}', '{"_aws":{"Timestamp":' + "9" * 30 + '},"x":"CloudWatchMetrics"}', '{"_aws"'),
    *("\ufeff2026-11-21T10:00:00Z [INFO] bom", "\u2028\u2029\x85\x0b\x0c", "\x1b[0m", "a\rb", "\r", " ", "\x7f"),
    COPIER.format("Traceback (most recent call last):"),
    COPIER.format('File "/a.py", line 1, in x'),
    json.dumps({"thread": "Copier", "message": "Traceback (most recent call last):", "x": 1e15, "timestamp": 5}),
]  # fmt: skip
lines = st.one_of(
    st.sampled_from(NASTY).map(str.encode),
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.builds(lambda a, b: a.encode() + b, st.sampled_from(NASTY), st.binary(max_size=20)),
)
logs = st.builds(lambda items, end: end.join(items), st.lists(lines, max_size=12), st.sampled_from([b"\n", b"\r\n"]))


def words(data: bytes | str) -> str:
    """What must arrive of a log: all of it but NULs, line ends and byte order marks; embedded JSON as it is."""
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    return re.sub("[\0\n\r\ufeff]", "", text)


def window() -> Window:
    return Window(14, now=lambda: NOW)


@pytest.mark.parametrize("pattern", [None, r"^\d{4}|^\{", "x"], ids=["default", "dates", "x"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=logs)
@example(data="\n".join(NASTY).encode())
@example(data=b"\xed\xa0\x80\n\xff\xfe\n\0\0\n")
def test_parse_and_batch_lose_no_byte_and_claim_no_impossible_time(pattern: str | None, data: bytes) -> None:
    one = Parser("TRACE", re.compile(pattern) if pattern else None, rejoin_tracebacks=False, window=window())
    text = data.decode(errors="replace") + "\n"
    if "_aws" in text:  # of a metrics document only the document is sent
        text = text.replace("_aws", "_aw_")
    records = one.parse(text, ARRIVAL)
    again = one.parse(text, ARRIVAL)  # now with warm caches
    assert (again.times, again.texts) == (records.times, records.texts)
    assert words("".join(records.texts)) == words(text)
    assert all(NOW * 1000 - 14 * 86_400_000 < moment < NOW * 1000 + 7_200_000 for moment in records.times)
    assert records.starts == sorted(records.starts)
    sent: list[str] = []
    while records.times:
        batch = Batch()
        taken = batch.add(records)
        assert taken > 0
        times, texts = batch.chronological()
        assert times == sorted(times)
        assert times[-1] - times[0] < 86_400_000
        msgspec.json.encode([piece for text in texts for piece in pieces(text)])
        for moment, text_of in zip(times, texts, strict=True):
            msgspec.json.encode(record_of(moment, text_of))
        sent += batch.texts
        records = Records(records.times[taken:], records.texts[taken:], records.starts[taken:])
    assert sent == again.texts


@settings(max_examples=30, deadline=None)
@given(data=logs)
@example(data="\n".join(NASTY).encode())
def test_levels_metrics_and_tracebacks_never_raise(data: bytes) -> None:
    text = data.decode(errors="replace") + "\n"
    with TestCase().assertNoLogs(parse.log):  # where it says that lines were sent as they are for a fault of ours
        for level in ("TRACE", "ERROR"):
            Parser(level, None, rejoin_tracebacks=True).parse(text, ARRIVAL)
    for line in text.split("\n"):
        entry_of(line)
        entry_of(json.dumps({"MESSAGE": [line, None], "PRIORITY": [line], "__CURSOR": line}))


def read_of(folder: Path, data: bytes, parser: Parser) -> list[str]:
    """All texts of a file that was written a minute ago."""
    (folder / "db").unlink(missing_ok=True)
    checkpoint = Checkpoint(folder / "db")
    checkpoint.open()
    path = folder / "a.log"
    path.write_bytes(data)
    source = FileSource("log", parser, checkpoint)
    status = path.stat()
    old = status.st_mtime_ns - 60 * 10**9
    os.utime(path, ns=(old, old))
    source.look([Seen((status.st_dev, status.st_ino), str(path), status.st_size, old)])
    found: list[str] = []
    for _ in range(1000):
        batch = source.next_batch(10_000)
        found += batch.texts
        source.delivered()
        if not source.more:
            break
    assert source.backlog() == 0
    source.close()
    checkpoint.close()
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=logs)
@example(data=b"2026-11-21T10:00:00Z [INFO] a\r b\r\r2026-11-21T10:00:01Z [INFO] c\r\nd")
def test_a_file_of_any_bytes_is_read_to_its_end_once(tmp_path: Path, data: bytes) -> None:
    data = data.replace(b"_aws", b"_aw_")
    found = read_of(tmp_path, data, Parser("TRACE", None, rejoin_tracebacks=False))
    assert words("".join(found)) == words(data)


@pytest.mark.parametrize("letter", ["a", "ü", "€", "😀"])
def test_a_line_that_fits_a_batch_and_no_event_comes_in_pieces(tmp_path: Path, letter: str) -> None:
    line = letter * ((MAX_MESSAGE + 20_000) // len(letter.encode()))
    found = read_of(tmp_path, f"{line}\n".encode(), Parser("TRACE", None, rejoin_tracebacks=True))
    assert "".join(found) == line
    assert all(len(text.encode()) <= MAX_MESSAGE for text in found)


def test_a_file_with_carriage_returns_only_has_lines(tmp_path: Path) -> None:
    block = b"2026-11-21T10:00:00Z [INFO] a\r2026-11-21T10:00:01Z [INFO] b\r at c\r\n at d\r"
    assert read_of(tmp_path, block, Parser("TRACE", None, rejoin_tracebacks=True)) == [
        "2026-11-21T10:00:00Z [INFO] a",
        "2026-11-21T10:00:01Z [INFO] b\n at c\n at d",
    ]


def test_a_fault_of_the_parser_costs_one_line_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real = copier.emf_of

    def faulty(line: str) -> copier.Metrics | None:
        if "bad" in line:
            raise KeyError("nobody expected this")
        return real(line)

    monkeypatch.setattr(parse, "emf_of", faulty)
    written = ["2026-11-21T10:00:00Z [INFO] a", " at b", "bad _aws", "2026-11-21T10:00:01Z [INFO] c", " at d"]
    records = Parser("TRACE", None, rejoin_tracebacks=True).parse("\n".join(written) + "\n", ARRIVAL)
    assert records.texts == ["\n".join(written[:2]), "bad _aws", "\n".join(written[3:])]
    assert records.times == [NOW * 1000, ARRIVAL, NOW * 1000 + 1000]


def test_of_lines_of_any_length_at_least_one_is_taken() -> None:
    """The first line longer than the average is no line longer than a batch."""
    block = b"a longer line first\n" + b"b\n" * 9
    assert whole_lines(block, BUDGET, 1) == (20, 1)
    assert whole_lines(block, 20 + OVERHEAD, 10) == (20, 1)
    assert whole_lines(block, 20, 10) == (0, 0)
    assert whole_lines(b"x" * MAX_MESSAGE, BUDGET, 10) == (0, 0)


def growth(work: Callable[[int], None]) -> float:
    """How many times longer 8 times as much takes; 8 is linear."""

    def seconds(size: int) -> float:
        best = 1e9
        for _ in range(3):
            began = time.process_time()
            work(size)
            best = min(best, time.process_time() - began)
        return best

    small, large = 20_000, 160_000
    return seconds(large) / max(seconds(small), 1e-4)


REPEATED = [
    "1",
    " ",
    "\t",
    '"',
    "(",
    "[",
    "{",
    "\\",
    "x ",
    '"level":"',
    '"level" :',
    "2026-11-21T10:00:00",
    ": ",
    " [INFO] (Copier) a",
]


@pytest.mark.parametrize("piece", REPEATED, ids=str)
def test_a_line_takes_time_in_proportion_to_its_length(piece: str) -> None:
    heads = ("", "2026-11-21T10:00:00", "x [INFO] (Copier) ", "2026-11-21T10:00:00.", '{"level"')

    def work(size: int) -> None:
        for head in heads:
            line = head + piece * (size // len(piece))
            Parser("ERROR", None, rejoin_tracebacks=True).parse(f"{line}\n", ARRIVAL)
            entry_of(line)
            record_of(ARRIVAL, line)

    assert growth(work) < 24


def test_a_time_before_2001_is_none_even_when_it_comes_again() -> None:
    """The caches know nothing of negative times, which mark what is below the minimum level."""
    one = Parser("TRACE", None, rejoin_tracebacks=True, window=window())
    line = "0001-01-01T00:00:00Z [INFO] (main) a: b\n"
    for _ in range(3):
        assert one.parse(line * 2, ARRIVAL).times == [ARRIVAL] * 2
    assert datetime.fromtimestamp(EARLIEST_MS / 1000, UTC).year == 2001


def test_health_messages_of_any_bytes_are_kept_or_told_of_now_and_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    health_log = HealthLog(tmp_path / "health", "EdgeML", "thing")
    good = {"component": "a", "version": "1", "at": 5.0, "uptime_s": 1.0, "counters": {}, "rates": {}}
    good |= {"latency_ms": {}, "gauges": {}, "notes": {}, "last_error": None}
    hostile = [b"", b"[" * 5000, b'{"at":' * 1500, b"\xff", b"NaN", json.dumps(good | {"at": 1.7e308}).encode()]
    for payload in [*hostile, json.dumps(good).encode(), *hostile]:
        health_log.received("edgeml/health/a", payload)
    assert len((tmp_path / "health" / "health.log").read_text().splitlines()) == 1
    assert caplog.text.count("health message not kept") == 4  # the 1st, 2nd, 4th, 8th


@pytest.mark.parametrize("at", [0.0, 4e9])
def test_a_health_message_of_any_time_takes_no_other_ones_place(
    at: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emf, "ROTATE_BYTES", 1)
    health_log = HealthLog(tmp_path / "health", "EdgeML", "thing")
    for number in range(5):
        report = msgspec.structs.replace(Health("a", "1").report(), at=at, uptime_s=float(number))
        health_log.received("edgeml/health/a", encode(report))
    found = [line for path in (tmp_path / "health").iterdir() for line in path.read_bytes().splitlines()]
    assert len(found) == 5


@pytest.mark.parametrize("region", ["x@evil.example/", "evil.example#", "eu west", "eu-west-1\n", "../x", "é"])
def test_a_region_leads_to_no_other_host(region: str) -> None:
    with pytest.raises(ConfigError, match="region"):
        load(Config, {"region": region})
