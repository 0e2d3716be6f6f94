"""What the updater makes of a cloud, a core and components that do not answer, a full disk and an odd journal."""

import errno
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeml.component import Context
from edgeml.errors import DisconnectedError, UnauthorizedError
from edgeml.health import Health
from edgeml.ipc import matches
from edgeml.messages import model_activate
from ipc_support import FakeIpc
from model_updater import installation, jobs, updater
from model_updater.config import Config
from model_updater.journal import STEPS, Journal, JournalFile
from model_updater.updater import MAX_INTERRUPTIONS, Updater
from ota_support import MODEL, FileServer, bundle_files, document, tiny_model, zipped
from updater_support import BASE, THING

Report = dict[str, Any]  # status, statusDetails


class Device(FakeIpc):
    """An Updater and a cloud that offers it one job; `reports` is what it tells the cloud, which may be `silent`."""

    def __init__(self, work: Path, server: FileServer) -> None:
        super().__init__()
        self.work, self.server = work, server
        self.reports: list[Report] = []
        self.silent: Callable[[Report], bool] = lambda report: False
        self.context = Context(ipc=self, health=Health("a", "1"), work=work, root=work, thing_name=THING)

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        request = json.loads(payload)
        body: dict[str, Any] = {"clientToken": request["clientToken"]}
        if topic == f"{BASE}/start-next":
            body["execution"] = {"jobId": "j", "executionNumber": 1, "jobDocument": self.job}
        elif topic == f"{BASE}/j/update":
            self.reports.append(request)
            if request["status"] != "IN_PROGRESS":
                self.context.stopping.set()
            if self.silent(request):
                return
        for pattern, handler in list(self.handlers.items()):
            if matches(pattern, f"{topic}/accepted"):
                handler(f"{topic}/accepted", json.dumps(body).encode())

    def update(self, model: bytes | None = None, **config: Any) -> Report:
        """The outcome of a job, as it was reported. Raises what ends the process."""
        content = zipped(bundle_files("2.0.0", model))
        self.job = document(content, "2.0.0", self.server.add(content))
        given = Config(allow_http=True, min_free_bytes=0, confirmation_timeout_s=0.1, **config)
        Updater(self.context, given).run()
        return self.reports[-1]

    def recorded(self) -> Journal | None:
        return JournalFile(self.work / "journal").load()


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(installation, "probe", lambda *given: None)  # which takes a process
    with FileServer() as server:
        yield Device(tmp_path, server)


def test_a_download_waits_for_an_unanswered_report_once_in_an_interval(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a clock that goes on by a second with each look at it, and by a minute with each wait for an answer."""
    seconds = itertools.count()
    looks: list[float] = []
    told: list[Report] = []

    def silent(report: Report) -> bool:
        if "progress" in report["statusDetails"]:
            told.append(report)
        return "progress" in report["statusDetails"]

    def look() -> float:
        looks.append(next(seconds) + 60 * len(told))
        return looks[-1]

    monkeypatch.setattr(updater, "PROGRESS_S", 4)
    monkeypatch.setattr(updater, "time", SimpleNamespace(monotonic=look))
    monkeypatch.setattr(jobs, "REPLY_TIMEOUT_S", 0.02)
    device.silent = silent
    device.update(tiny_model(padding=1 << 20))
    assert 1 <= len(told) <= len(looks) // 5
    steps = {"step": "download", "model": MODEL, "from_version": "none", "to_version": "2.0.0"}
    assert [{**report["statusDetails"], "progress": ""} for report in told] == [{**steps, "progress": ""}] * len(told)
    shares = [int(report["statusDetails"]["progress"].removesuffix(" %")) for report in told]
    assert shares == sorted(shares)
    assert 0 < shares[0] <= shares[-1] <= 100


@pytest.mark.parametrize(
    ("required", "outcome"),
    [(True, f"nobody who uses {MODEL} answered within 0.1 s"), (False, None)],
    ids=["refusal", "consent"],
)
def test_silence_is_consent_where_configured(device: Device, required: bool, outcome: str | None) -> None:
    report = device.update(require_confirmation=required)
    assert report["status"] == ("SUCCEEDED" if outcome is None else "FAILED")
    assert report["statusDetails"].get("reason") == outcome


def test_the_core_that_goes_away_is_no_fault_of_the_job(device: Device) -> None:
    def crossed(call: str, topic: str) -> None:
        if topic == model_activate(MODEL):
            raise DisconnectedError("the socket is gone")

    device.crossed = crossed
    with pytest.raises(DisconnectedError):
        device.update()
    recorded = device.recorded()
    assert recorded is not None
    assert (recorded.outcome, recorded.done, recorded.interruptions) == (None, "switch", 0)


def test_an_outcome_for_which_there_is_no_room_takes_that_of_the_download(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, save, kept = device.work / "job" / "artifact", JournalFile.save, list[Journal]()

    def full(file: JournalFile, journal: Journal) -> None:
        if part.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        kept.append(journal)
        save(file, journal)

    monkeypatch.setattr(JournalFile, "save", full)
    report = device.update()
    assert (report["status"], report["statusDetails"]["step"]) == ("FAILED", "download")
    assert "No space left on device" in report["statusDetails"]["reason"]
    assert kept[-1].outcome is not None
    assert kept[-1].outcome.details["reason"] == report["statusDetails"]["reason"]
    assert not part.parent.exists()


@pytest.mark.parametrize(
    ("interruptions", "status"),
    [(0, "SUCCEEDED"), (1, "SUCCEEDED"), (MAX_INTERRUPTIONS - 1, "SUCCEEDED"), (MAX_INTERRUPTIONS, "FAILED")],
)
def test_a_step_is_begun_so_often(device: Device, interruptions: int, status: str) -> None:
    """By the journal, which counts the starts of a process that did not get to its end."""
    begun = Journal(job_id="j", execution_number=1, document=None, interruptions=interruptions)
    JournalFile(device.work / "journal").save(begun)
    report = device.update(require_confirmation=False)
    assert report["status"] == status
    more = f"this step was interrupted more than {MAX_INTERRUPTIONS} times"
    assert report["statusDetails"].get("reason") == (more if status == "FAILED" else None)


@pytest.mark.parametrize(
    "content",
    [b'{"job_id": "j", "execution_number": 1, "document": null, "done": "a step of 2.0"}', b"[" * 100_000, b"\xff"],
)
def test_a_journal_that_is_not_understood_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(content)
    assert JournalFile(tmp_path).load() is None


def told(device: Device) -> list[dict[str, Any]]:
    """What it showed on the core of its update."""
    return [json.loads(payload) for topic, payload in device.local if topic == f"edgeml/model/{MODEL}/status"]


def test_an_update_is_shown_with_its_steps_the_share_of_its_download_and_its_end(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater, "SHOWN_S", 0.0)
    device.update(tiny_model(padding=1 << 20), require_confirmation=False)
    shown = told(device)
    assert {(each["model"], each["version"], each["component"]) for each in shown} == {
        (MODEL, "2.0.0", "edgeml.ModelUpdater")
    }
    steps = [each.get("step", "") for each in shown if "progress" not in each]
    assert steps == [*STEPS[1:], ""]  # "admit" is not shown: it is not known yet whether this model may be
    shares = [each["progress"] for each in shown if "progress" in each]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    assert [each["status"] for each in shown] == ["updating"] * (len(shown) - 1) + ["installed"]


def test_an_update_that_fails_is_shown_with_the_reason(device: Device) -> None:
    device.update(require_confirmation=True)
    assert {"status": "failed", "reason": f"nobody who uses {MODEL} answered within 0.1 s"}.items() <= told(device)[
        -1
    ].items()


def test_what_is_not_admitted_is_not_shown(device: Device) -> None:
    assert device.update(tiny_model(padding=4096), max_download_bytes=1024)["status"] == "FAILED"
    assert told(device) == []


def test_what_is_shown_answers_no_activation(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a core the updater hears what it says itself on this topic."""
    heard = Device.publish

    def publish(self: Device, topic: str, payload: bytes, *, wait: float = 10.0) -> None:
        heard(self, topic, payload, wait=wait)
        if topic in self.handlers:
            self.handlers[topic](topic, payload)
        elif topic == model_activate(MODEL):
            for status in ("updating", "installed", "failed"):
                own = {"model": MODEL, "version": "2.0.0", "status": status, "component": "edgeml.ModelUpdater"}
                self.handlers[f"edgeml/model/{MODEL}/status"]("", json.dumps(own).encode())

    monkeypatch.setattr(Device, "publish", publish)
    assert device.update(require_confirmation=False)["status"] == "SUCCEEDED"


def test_a_core_that_does_not_allow_it_costs_no_update(device: Device) -> None:
    def refuse(call: str, topic: str) -> None:
        if topic.endswith("/status"):
            raise UnauthorizedError(topic)

    device.crossed = lambda call, topic: refuse(call, topic) if call == "publish" else None
    assert device.update(require_confirmation=False)["status"] == "SUCCEEDED"
