"""What the updater makes of a cloud, a core and components that do not answer, a full disk and an odd journal."""

import errno
import json
from pathlib import Path

import pytest

from edgeml.component import Context
from edgeml.errors import DisconnectedError
from edgeml.health import Health
from edgeml.messages import ModelActivate
from ipc_support import FakeIpc
from model_updater.config import Config
from model_updater.document import parse
from model_updater.errors import UpdateError
from model_updater.journal import Journal, JournalFile
from model_updater.updater import Updater
from ota_support import MODEL, document
from support import eventually
from updater_support import BASE, THING


@pytest.fixture
def worker(tmp_path: Path) -> tuple[Updater, FakeIpc]:
    ipc = FakeIpc()
    context = Context(ipc=ipc, health=Health("a", "1"), work=tmp_path, root=tmp_path, thing_name=THING)
    return Updater(context, Config()), ipc


def job_in_hand() -> Journal:
    content = b"size"
    return Journal(job_id="j", execution_number=1, document=parse(document(content, "2.0.0", "https://host/x")))


def test_a_download_waits_for_an_unanswered_report_once_in_an_interval(
    worker: tuple[Updater, FakeIpc], monkeypatch: pytest.MonkeyPatch
) -> None:
    updater, ipc = worker
    monkeypatch.setattr("model_updater.updater.PROGRESS_S", 0.2)
    monkeypatch.setattr("model_updater.jobs.REPLY_TIMEOUT_S", 0.3)
    held = job_in_hand()
    assert held.document is not None
    progress = updater._installation(held, held.document)._tools.progress
    eventually(lambda: progress(1) or ipc.iot, 5, "a report")
    progress(1)
    progress(1)
    ((topic, payload, _),) = ipc.iot
    report = json.loads(payload)
    assert (topic, report["status"]) == (f"{BASE}/j/update", "IN_PROGRESS")
    details = {"step": "download", "progress": "25 %", "model": MODEL, "from_version": "none", "to_version": "2.0.0"}
    assert report["statusDetails"] == details


def activation() -> ModelActivate:
    return ModelActivate(model=MODEL, version="2.0.0", path="/x", request_id="j/1")


@pytest.mark.parametrize("required", [True, False])
def test_silence_is_consent_where_configured(worker: tuple[Updater, FakeIpc], required: bool) -> None:
    updater, _ = worker
    updater._rules = Config(confirmation_timeout_s=0.1, require_confirmation=required)
    assert updater._confirm(activation()) == (f"nobody who uses {MODEL} answered within 0.1 s" if required else "")


def test_the_core_that_goes_away_is_no_fault_of_the_job(worker: tuple[Updater, FakeIpc], tmp_path: Path) -> None:
    updater, _ = worker
    held = job_in_hand()
    held.interruptions = 1

    def step() -> None:
        raise DisconnectedError("the socket is gone")

    with pytest.raises(DisconnectedError):
        updater._take(held, "confirm", step)
    recorded = JournalFile(tmp_path / "journal").load()
    assert recorded is not None
    assert (recorded.outcome, recorded.done, recorded.interruptions) == (None, "", 0)


def test_an_outcome_for_which_there_is_no_room_takes_that_of_the_download(
    worker: tuple[Updater, FakeIpc], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater, _ = worker
    part = tmp_path / "job" / "artifact"
    part.parent.mkdir()
    part.write_bytes(b"x" * 1000)
    save = JournalFile.save

    def full(file: JournalFile, journal: Journal) -> None:
        if part.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        save(file, journal)

    monkeypatch.setattr(JournalFile, "save", full)
    updater._failed(job_in_hand(), "download", UpdateError("the disk is full"))
    assert not part.parent.exists()
    recorded = JournalFile(tmp_path / "journal").load()
    assert recorded is not None
    assert recorded.outcome is not None
    assert recorded.outcome.details["reason"] == "the disk is full"


@pytest.mark.parametrize(
    "content",
    [b'{"job_id": "j", "execution_number": 1, "document": null, "done": "a step of 2.0"}', b"[" * 100_000, b"\xff"],
)
def test_a_journal_that_is_not_understood_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(content)
    assert JournalFile(tmp_path).load() is None
