"""An error that nobody expected, at each border: its own log waits and is tried again, all others go on."""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgeml.component import Context
from edgeml.health import Health
from edgeml.ipc import StandaloneIpc
from log_shipper import shipper, times, units
from log_shipper.batch import Batch
from log_shipper.checkpoint import Checkpoint
from log_shipper.config import Config
from log_shipper.credentials import Signer
from log_shipper.errors import DeliveryError
from log_shipper.files import FileSource
from log_shipper.logfile import LogFile
from log_shipper.scan import Log, Scanner
from support import eventually


class To:
    """A sink that is a function."""

    keeps_days = 14

    def __init__(self, put: Callable[[Log, Batch], None]) -> None:
        self.put = put

    def close(self) -> None: ...


class Rig:
    """A Shipper in this process whose sinks keep what they are given."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.logs, self.work = folder / "logs", folder / "work"
        self.logs.mkdir()
        self.work.mkdir()
        self.delivered: list[tuple[str, str]] = []
        self.health = Health("edgeml.LogShipper", "1")
        self.send: Callable[[Log, Batch], None] = lambda log, batch: None
        raw = {"components": ["*"], "periodicUploadIntervalSec": 0.05, "maxRetryDelaySec": 0.05, **config}
        self.config = msgspec.convert(raw, Config)

    def start(self, *, journal: bool = False) -> None:
        context = Context(StandaloneIpc.__new__(StandaloneIpc), self.health, self.work, self.logs, "thing")
        scanner = Scanner(self.config, self.logs)
        self.shipper = shipper.Shipper(self.config, scanner, {"cloudwatch": To(self.put)}, context, journal)
        self.shipper.start()

    def put(self, log: Log, batch: Batch) -> None:
        self.send(log, batch)
        self.delivered += [(log.name, text) for text in batch.texts]

    def write(self, name: str, text: str) -> None:
        with (self.logs / f"{name}.log").open("a") as file:
            file.write(f"{text}\n")

    def has(self, name: str, text: str) -> None:
        eventually(lambda: (name, text) in self.delivered, what=f"{text} of {name}")

    def problems(self) -> set[str]:
        return {problem.code for problem in self.health.problems.current()}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    assert made.shipper.stop(5)


class UnexpectedError(Exception):
    """What no code of ours knows of."""


def failing_for_bad(monkeypatch: pytest.MonkeyPatch, kind: type, method: str, name_of: Callable[..., str]) -> None:
    real = getattr(kind, method)

    def faulty(self: Any, *arguments: Any, **options: Any) -> Any:
        if "bad" in name_of(self, *arguments):
            raise UnexpectedError("made up")
        return real(self, *arguments, **options)

    monkeypatch.setattr(kind, method, faulty)


BORDERS: dict[str, tuple[type, str, Callable[..., str]]] = {
    "scan": (FileSource, "look", lambda self, seen: self.name),
    "source": (FileSource, "next_batch", lambda self, most: self.name),
    "rewind": (FileSource, "next_batch", lambda self, most: self.name),
    "file": (LogFile, "read", lambda self, size: str(self.path)),
    "checkpoint": (Checkpoint, "save", lambda self, name, *marks: name),
    "marks": (Checkpoint, "marks", lambda self, name: name),
}


@pytest.mark.parametrize("border", BORDERS)
def test_one_broken_log_stops_no_other_and_goes_on_when_it_is_over(
    rig: Rig, border: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as patched, caplog.at_level(logging.ERROR):
        failing_for_bad(patched, *BORDERS[border])
        rig.write("bad", "first")
        rig.write("good", "first")
        rig.start()
        rig.has("good", "first")
        eventually(lambda: "worker_failed" in rig.problems(), what="the problem")
        rig.write("good", "second")
        rig.has("good", "second")
    assert sum("Traceback" in text for text in caplog.text.split("unexpectedly")) < 12  # the 1st, 2nd, 4th, 8th ...
    rig.has("bad", "first")
    eventually(lambda: not rig.problems(), what="the end of the problem")
    assert [text for name, text in rig.delivered if name == "bad"] == ["first"]


def test_a_client_that_raises_whatever_is_an_outage_of_its_log(rig: Rig) -> None:
    faulty = True

    def send(log: Log, batch: Batch) -> None:
        if faulty and log.name == "bad":
            raise UnexpectedError("made up")

    rig.send = send
    rig.write("bad", "first")
    rig.write("good", "first")
    rig.start()
    rig.has("good", "first")
    eventually(lambda: "worker_failed" in rig.problems(), what="the problem")
    faulty = False
    rig.has("bad", "first")


def test_a_bad_sector_in_one_file_leaves_the_other_files_of_its_log(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LogFile.read

    def read(file: LogFile, size: int) -> bytes:
        if "_05_" in str(file.path):
            raise OSError(5, "Input/output error")
        return real(file, size)

    monkeypatch.setattr(LogFile, "read", read)
    rig.write("a_2026_11_21_05_0", "lost for now")
    rig.write("a", "active")
    rig.start()
    rig.has("a", "active")
    eventually(lambda: "source_failed" in rig.problems(), what="the problem")
    monkeypatch.undo()
    rig.has("a", "lost for now")


def test_journalctl_that_is_missing_or_raises_stops_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def popen(*arguments: object, **options: object) -> None:
        raise UnexpectedError("made up")

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(shipper, "all_units", lambda: ["ggl.edgeml.A.service"])
    one = Rig(tmp_path, components=["edgeml.*"])
    one.write("edgeml.B", "first")
    one.start(journal=True)
    one.has("edgeml.B", "first")
    eventually(lambda: "worker_failed" in one.problems(), what="the problem")
    one.write("edgeml.B", "second")
    one.has("edgeml.B", "second")
    assert one.shipper.stop(5)


def test_journalctl_that_hangs_delays_no_files_and_one_broken_unit_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    names = ["ggl.edgeml.Bad.service", "ggl.edgeml.Good.service"]
    monkeypatch.setattr(shipper, "all_units", lambda: names if answered.wait(20) else [])
    failing_for_bad(monkeypatch, Checkpoint, "cursor", lambda self, name: name.lower())
    one = Rig(tmp_path, components=["edgeml.*"])
    one.write("edgeml.B", "first")
    one.start(journal=True)
    one.has("edgeml.B", "first")
    answered.set()
    eventually(lambda: len(one.shipper) == 2, what="the other unit")
    eventually(lambda: "worker_failed" in one.problems(), what="the problem")
    assert one.shipper.stop(5)


def test_no_journalctl_is_no_units(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("journalctl", 20)

    monkeypatch.setattr(subprocess, "run", run)
    assert units.all_units() == []


def test_any_error_of_botocore_is_a_lack_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.session

    def session() -> None:
        raise UnexpectedError("made up")

    monkeypatch.setattr(botocore.session, "Session", session)
    with pytest.raises(DeliveryError) as caught:
        Signer("eu-west-1").sign("http://127.0.0.1:9/", {}, b"")
    assert caught.value.code == "credentials"


def test_lines_wait_for_a_clock_that_is_not_set_and_not_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from clock_support import FakeClock

    clock = FakeClock(5.0)
    monkeypatch.setattr(shipper, "CLOCK", clock)
    monkeypatch.setattr(times, "CLOCK", clock)
    rig.write("a", "2026-11-21T10:00:00Z [INFO] (main) a: first")
    rig.start()
    eventually(lambda: "clock" in rig.problems(), what="the problem")
    assert rig.delivered == []
    clock.pass_s(600)
    rig.has("a", "2026-11-21T10:00:00Z [INFO] (main) a: first")
    clock.synchronise(time.time())
    eventually(lambda: not rig.problems(), what="its end")


def test_a_destination_that_hangs_takes_no_sender_from_the_other(tmp_path: Path) -> None:
    hanging = threading.Event()
    one = Rig(tmp_path)
    context = Context(StandaloneIpc.__new__(StandaloneIpc), one.health, one.work, one.logs, "thing")

    def hang(log: Log, batch: Batch) -> None:
        hanging.wait(20)

    sinks = {"cloudwatch": To(hang), "iot_core": To(one.put)}
    for number in range(20):
        one.write(f"log-{number}", "line")
    one.shipper = shipper.Shipper(one.config, Scanner(one.config, one.logs), sinks, context, False)
    one.shipper.start()
    for number in range(20):
        one.has(f"log-{number}", "line")
    hanging.set()
    assert one.shipper.stop(5)
