"""The component as a process outside Greengrass, its IoT Core messages carried to the local cloud's IoT Jobs."""

import contextlib
import errno
import json
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgeml import models
from edgeml.component import Context
from edgeml.errors import DisconnectedError
from edgeml.health import Health
from edgeml.ipc import Handler, StandaloneIpc, Subscription
from edgeml.messages import ModelActivate
from localdev.cloud import LocalCloud
from localdev.cloud.iot_jobs import IotJobs
from model_updater.config import Config
from model_updater.document import parse
from model_updater.errors import UpdateError
from model_updater.journal import STEPS, Journal, JournalFile
from model_updater.updater import MAX_INTERRUPTIONS, Updater
from ota_support import MODEL, FileServer, Signer, bundle_files, document, tiny_model, zipped
from support import Standalone, eventually

THING = "turbine-7"
BASE = f"$aws/things/{THING}/jobs"
KILLED = Path(__file__).with_name("killed.py")
CONFIG = {"allow_http": True, "min_free_bytes": 0, "confirmation_timeout_s": 20, "poll_interval_s": 600}


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


@pytest.fixture(scope="module")
def jobs(cloud: LocalCloud) -> Iterator[IotJobs]:
    with IotJobs(cloud.aws, *cloud.mqtt_address) as running:
        cloud.aws.client("iot").create_thing(thingName=THING)
        yield running


class Device:
    """A device that is switched on and off, with a user of the model that answers activations."""

    def __init__(self, cloud: LocalCloud, jobs: IotJobs, root: Path) -> None:
        self._iot, self._cloud = cloud.aws.client("iot"), cloud
        self.root, self.work = root, root / "work" / "edgeml.ModelUpdater"
        self.online, self.verdict = True, "accepted"
        self.on_activation: Callable[[], None] = lambda: None
        self.handed_out = 0  # job documents, each with a URL of its own, as presigned ones are
        self.activations: list[dict[str, Any]] = []
        self.tampered: dict[str, Any] = {}  # fields that somebody on the way gives every job document
        self.files = FileServer()
        self.jobs: list[str] = []

    def on(self, *, killed_in: str = "", **config: Any) -> "Running":
        """`killed_in` is the step in which the process gets SIGKILL."""
        return Running(self, {**CONFIG, **config}, killed_in)

    def offer(self, version: str, content: bytes | None = None, **changes: Any) -> str:
        """Make a job; its id."""
        content = zipped(bundle_files(version)) if content is None else content
        return self.job({**document(content, version, self.files.add(content)), **changes})

    def job(self, body: dict[str, Any]) -> str:
        self.jobs.append(job_id := f"{self.root.name[:40]}-{len(self.jobs)}")
        arn = f"arn:aws:iot:us-east-1:123456789012:thing/{THING}"
        self._iot.create_job(jobId=job_id, targets=[arn], document=json.dumps(body))
        eventually(lambda: self.status(job_id), 5, "an execution")
        return job_id

    def status(self, job_id: str) -> str:
        try:
            return str(self._iot.describe_job_execution(jobId=job_id, thingName=THING)["execution"]["status"])
        except self._iot.exceptions.ResourceNotFoundException:
            return ""

    def details(self, job_id: str) -> dict[str, str]:
        found = self._iot.describe_job_execution(jobId=job_id, thingName=THING)["execution"]
        return dict(found["statusDetails"]["detailsMap"])

    def cancel(self, job_id: str) -> None:
        self._iot.cancel_job(jobId=job_id, force=True)

    @property
    def active(self) -> str:
        place = models.updater_folder(self.root, MODEL)
        return models.load(place).manifest.version if place.is_symlink() else ""

    def idle(self) -> bool:
        """Nothing is left of the last job."""
        return not (self.work / "job").exists() and not list((self.work / "journal").glob("*"))


class Running:
    """The component's process, and threads that carry its messages, from switching on to switching off."""

    def __init__(self, device: Device, config: dict[str, Any], killed_in: str) -> None:
        self._device = device
        environment = {"AWS_IOT_THING_NAME": THING}
        if killed_in:
            environment["KILL_IN"] = killed_in
        program = KILLED if killed_in else "model_updater"
        self.process = Standalone(program, config, device.work, env=environment, root=device.root)
        self.idle = threading.Event()  # it has asked for jobs and got none

    def __enter__(self) -> "Running":
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        ready, self._ended = threading.Event(), threading.Event()
        topics = ("notify-next", "start-next/+", "+/get/+", "+/update/+")
        self._client.on_connect = lambda client, *_: client.subscribe([(f"{BASE}/{topic}", 1) for topic in topics])
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = lambda client, data, m: self._deliver(m.topic, json.loads(m.payload))
        self._client.connect(*self._device._cloud.mqtt_address)
        self._client.loop_start()
        assert ready.wait(5)
        self.process.__enter__()
        self._carrier = threading.Thread(target=self._carry, daemon=True)
        self._carrier.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.off()
        self._ended.set()
        self._carrier.join(5)
        self._client.disconnect()
        self._client.loop_stop()

    def off(self) -> int:
        return self.process.stop()

    def cut_power(self) -> None:
        self.process.process.kill()
        self.process.ended()

    def _deliver(self, topic: str, payload: dict[str, Any]) -> None:
        document = payload.get("execution", {}).get("jobDocument") or {}
        if topic.endswith("/accepted") and "deployment_artifact_path" in document:
            self._device.handed_out += 1
            document["deployment_artifact_path"] += f"?signature={self._device.handed_out}"
            document |= self._device.tampered
        self._send("iot_core", topic, payload)
        if topic.endswith("start-next/accepted") and not payload.get("execution"):
            self.idle.set()

    def _send(self, channel: str, topic: str, payload: Any) -> None:
        if self.process.process.poll() is None and (self._device.online or channel == "local"):
            with contextlib.suppress(OSError, ValueError):  # it was just switched off
                self.process.send(topic, payload, channel)

    def _carry(self) -> None:
        carried = 0
        while not self._ended.wait(0.01):
            for line in self.process.lines[carried:]:
                carried += 1
                if line["channel"] == "iot_core" and self._device.online:
                    self._client.publish(line["topic"], json.dumps(line["payload"]), qos=1)
                elif line["topic"] == f"edgeml/model/{MODEL}/activate":
                    self._answer(line["payload"])

    def _answer(self, asked: dict[str, Any]) -> None:
        self._device.activations.append(asked)
        self._device.on_activation()
        if self._device.verdict != "silent":
            status = {"model": MODEL, "version": asked["version"], "component": "edgeml.Inferencer"}
            status |= {"status": self._device.verdict, "reason": "no such\ndecoder", "request_id": asked["request_id"]}
            self._send("local", f"edgeml/model/{MODEL}/status", status)


@pytest.fixture
def device(cloud: LocalCloud, jobs: IotJobs, tmp_path: Path) -> Iterator[Device]:
    made = Device(cloud, jobs, tmp_path)
    with made.files:
        yield made
    for job_id in made.jobs:
        made.cancel(job_id)  # a job that a failed test left open must not be the next one's


Installed = Callable[[str], None]


def has_ended(device: Device, job_id: str, status: str) -> None:
    eventually(lambda: device.status(job_id) == status, 20, f"{job_id} {status}")


def test_jobs_go_from_offer_to_success_one_after_the_other(device: Device) -> None:
    first, second = device.offer("1.0.0"), device.offer("1.1.0")
    with device.on() as running:
        has_ended(device, second, "SUCCEEDED")
        assert running.idle.wait(10)
        third = device.offer("2.0.0")  # this one is heard of by notification
        has_ended(device, third, "SUCCEEDED")
        eventually(device.idle, 5, "tidied up")
        assert running.off() == 0
    assert device.active == "2.0.0"
    assert device.details(first) == {"model": MODEL, "from_version": "none", "to_version": "1.0.0"}
    assert device.details(third) == {"model": MODEL, "from_version": "1.1.0", "to_version": "2.0.0"}
    assert [asked["version"] for asked in device.activations] == ["1.0.0", "1.1.0", "2.0.0"]
    assert [path for path, _ in device.files.requests] == [path for path, _ in dict.fromkeys(device.files.requests)]


def test_what_cannot_be_done_fails_with_a_reason_and_the_next_job_is_taken(device: Device) -> None:
    foreign = device.job({"operation": "reboot", "version": "1.0.0"})
    strange = device.job({"operation": "update_model", "version": "9.0"})
    corrupt = device.offer("1.0.0", zipped(bundle_files("1.0.0", tiny_model(float("nan")))))
    odd = device.offer("1.0.0", zipped(bundle_files("1.0.0", files={"\x07ü\u202e" * 1000: "0" * 64})))
    good = device.offer("1.0.1")
    with device.on():
        has_ended(device, good, "SUCCEEDED")
    assert {device.status(job) for job in (foreign, strange, corrupt, odd)} == {"FAILED"}
    assert " \\xfc  \\xfc " in device.details(odd)["reason"]
    assert len(device.details(odd)["reason"]) == 1024
    assert "unknown operation 'reboot'" in device.details(foreign)["reason"]
    assert "unknown document version '9.0'" in device.details(strange)["reason"]
    assert "not finite" in device.details(corrupt)["reason"]
    assert device.details(corrupt)["step"] == "probe"
    assert device.active == "1.0.1"


def test_a_refusal_or_silence_puts_the_old_version_back(device: Device) -> None:
    with device.on(confirmation_timeout_s=1) as running:
        has_ended(device, device.offer("1.0.0"), "SUCCEEDED")
        device.verdict = "refused"
        refused = device.offer("2.0.0")
        has_ended(device, refused, "FAILED")
        assert device.details(refused)["reason"] == "edgeml.Inferencer refused the model: no such decoder"
        assert device.active == "1.0.0"
        device.verdict, device.files.pause = "silent", threading.Event()
        unanswered = device.offer("3.0.0")
        assert device.files.reached.wait(10)
        changed = {**CONFIG, "require_confirmation": False, "allow_http": False}  # for the next job
        running.process.config_file.write_text(json.dumps(changed))
        running.process.logged("configuration changed")
        device.files.pause.set()
        has_ended(device, unanswered, "FAILED")
        assert "nobody who uses Tiny answered within 1 s" in device.details(unanswered)["reason"]
        insecure = device.offer("4.0.0")
        has_ended(device, insecure, "FAILED")
        assert "only https are allowed" in device.details(insecure)["reason"]
        eventually(device.idle, 5, "tidied up")
    assert device.active == "1.0.0"


def test_the_power_may_go_in_every_step(device: Device) -> None:
    with device.on():
        has_ended(device, device.offer("1.0.0"), "SUCCEEDED")
    job = device.offer("2.0.0")
    for step in STEPS:
        with device.on(killed_in=step) as running:
            assert running.process.ended(20) == -signal.SIGKILL, step
        assert device.active == ("2.0.0" if step == "confirm" else "1.0.0"), step
        assert device.status(job) == "IN_PROGRESS"
    with device.on():
        has_ended(device, job, "SUCCEEDED")
        eventually(device.idle, 5, "tidied up")
    assert device.active == "2.0.0"
    assert device.details(job)["from_version"] == "1.0.0"


@pytest.mark.parametrize("step", ["download", "probe", "confirm"])
def test_what_was_admitted_is_not_exchanged_over_a_restart(device: Device, step: str) -> None:
    signer = Signer()
    good, evil = zipped(bundle_files("1.0.0")), zipped(bundle_files("6.6.6"))
    job_id = device.job(signer.signed(document(good, "1.0.0", device.files.add(good))))
    with device.on(killed_in=step, public_key=signer.public) as running:
        running.process.ended()
    device.tampered = document(evil, "6.6.6", device.files.add(evil))
    with device.on(public_key=signer.public):
        if step == "confirm":  # it is active: what the journal knows of the checked document is enough to end it
            has_ended(device, job_id, "SUCCEEDED")
            assert device.active == "1.0.0"
        else:
            has_ended(device, job_id, "FAILED")
            assert "signature does not fit" in device.details(job_id)["reason"]
            assert device.active == ""
    assert device.idle()
    assert not list(device.work.glob("models/*/versions/6*"))


def test_a_document_nested_out_of_reach_fails_its_job_and_holds_nothing_up(device: Device) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = {"a": deep}
    bad, good = device.offer("1.0.0", size=deep), device.offer("1.1.0")
    with device.on():
        has_ended(device, good, "SUCCEEDED")
    assert device.status(bad) == "FAILED"


def test_a_step_that_ends_the_process_again_and_again_fails_the_job(device: Device) -> None:
    job = device.offer("1.0.0")
    for _ in range(2):
        with device.on(killed_in="probe") as running:
            assert running.process.ended(20) == -signal.SIGKILL
    file = device.work / "journal" / "job.json"
    written = json.loads(file.read_text())
    assert written["interruptions"] == 1, "the first attempt at a step is no repetition"
    file.write_text(json.dumps(written | {"interruptions": MAX_INTERRUPTIONS}))
    with device.on():
        has_ended(device, job, "FAILED")
        eventually(device.idle, 5, "tidied up")
        has_ended(device, device.offer("1.1.0"), "SUCCEEDED")
    assert device.details(job)["step"] == "probe"
    assert device.details(job)["reason"] == f"this step was interrupted more than {MAX_INTERRUPTIONS} times"


@pytest.mark.parametrize(
    "content",
    [b'{"job_id": "j", "execution_number": 1, "document": null, "done": "a step of 2.0"}', b"[" * 100_000, b"\xff"],
)
def test_a_journal_that_is_not_understood_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(content)
    assert JournalFile(tmp_path).load() is None


def test_a_download_goes_on_after_a_stop(device: Device) -> None:
    content = zipped(bundle_files("1.0.0", tiny_model(padding=1_000_000)))
    device.files.pause = threading.Event()
    job = device.offer("1.0.0", content)
    with device.on() as running:
        part = device.work / "job" / "artifact"
        eventually(lambda: part.exists() and part.stat().st_size > 1_000_000, 10, "half of the download")
        assert device.status(job) == "IN_PROGRESS"
        details = {"step": "download", "model": MODEL, "from_version": "none", "to_version": "1.0.0"}
        assert device.details(job) == details
        assert running.off() == 0
    assert json.loads(journal(device))["interruptions"] == 0, "to be asked to stop is no fault of the step"
    device.files.pause.set()
    with device.on():
        has_ended(device, job, "SUCCEEDED")
    start = int(device.files.requests[-1][1].removeprefix("bytes=").rstrip("-"))
    assert start > 1_000_000


def test_a_url_that_expired_is_asked_for_anew(device: Device) -> None:
    device.files.expired = {"signature=1"}
    with device.on():
        has_ended(device, device.offer("1.0.0"), "SUCCEEDED")
    assert device.active == "1.0.0"
    assert device.handed_out == 2


def test_a_job_that_is_cancelled_under_way_is_dropped(device: Device) -> None:
    device.files.pause = threading.Event()
    with device.on() as running:
        job = device.offer("1.0.0")
        assert device.files.reached.wait(10)
        device.cancel(job)
        device.files.pause.set()
        running.process.logged("status=abandoned")
        has_ended(device, device.offer("2.0.0"), "SUCCEEDED")
    assert "status=FAILED" not in running.process.log
    assert device.status(job) == "CANCELED"
    assert device.active == "2.0.0"


def test_a_job_that_is_cancelled_before_its_report_holds_nothing_up(device: Device) -> None:
    with device.on():
        job = device.offer("1.0.0")
        device.on_activation = lambda: device.cancel(job)
        eventually(lambda: device.activations, 10, "the activation")
        following = device.offer("2.0.0")
        has_ended(device, following, "SUCCEEDED")
    assert device.status(job) == "CANCELED"
    assert device.details(following)["from_version"] == "1.0.0", "what was done when the cancellation came stays done"


def test_a_job_that_was_cancelled_while_the_device_was_off_is_dropped(device: Device) -> None:
    with device.on():
        has_ended(device, device.offer("1.0.0"), "SUCCEEDED")
    job = device.offer("2.0.0")
    with device.on() as running:
        running.process.logged("step=unpack ")
        running.cut_power()
    device.cancel(job)
    has_ended(device, job, "CANCELED")
    with device.on() as running:
        running.process.logged("status=abandoned")
        eventually(device.idle, 5, "tidied up")
        has_ended(device, device.offer("3.0.0"), "SUCCEEDED")
    assert device.status(job) == "CANCELED"
    assert device.active == "3.0.0"


def test_an_outcome_is_reported_after_a_restart(device: Device) -> None:
    job = device.offer("1.0.0")
    device.on_activation = lambda: setattr(device, "online", False)
    with device.on() as running:
        eventually(lambda: '"outcome":{' in journal(device), 10, "the outcome on disk")
        running.cut_power()
    assert device.status(job) == "IN_PROGRESS"
    device.online = True
    with device.on():
        has_ended(device, job, "SUCCEEDED")
        eventually(device.idle, 5, "tidied up")
    assert len(device.activations) == 1, "what is done is not done again"


def test_an_unconfirmed_version_is_settled_without_the_cloud(device: Device) -> None:
    with device.on():
        has_ended(device, device.offer("1.0.0"), "SUCCEEDED")
    device.verdict = "silent"
    job = device.offer("2.0.0")
    with device.on() as running:
        running.process.logged("step=confirm ")
        running.cut_power()
    assert device.active == "2.0.0"
    device.online, device.verdict = False, "refused"
    with device.on():
        eventually(lambda: device.active == "1.0.0", 10, "the old version is back")
    device.online = True
    with device.on():
        has_ended(device, job, "FAILED")


def test_a_wrong_key_stops_the_component_at_the_start(device: Device) -> None:
    with device.on(public_key="AAAA") as running:
        assert running.process.ended() == 78
        assert "public_key" in running.process.log


def test_a_second_signature_cannot_be_demanded_without_a_key(device: Device) -> None:
    with device.on(require_signature=2) as running:
        assert running.process.ended() == 78
        assert "require_signature: expected a public_key" in running.process.log


def test_a_full_disk_fails_the_job_and_not_the_process(device: Device) -> None:
    with device.on() as running:
        has_ended(device, device.offer("1.0.0"), "SUCCEEDED")
        eventually(device.idle, 5, "tidied up")
        pid = running.process.process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # each write to a file fails
        job = device.offer("2.0.0")
        has_ended(device, job, "FAILED")
        assert "File too large" in device.details(job)["reason"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        has_ended(device, device.offer("3.0.0"), "SUCCEEDED")
        assert running.process.process.poll() is None
    assert device.active == "3.0.0"


class Mute(StandaloneIpc):
    """A connection over which AWS IoT never answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def subscribe_iot(self, topic: str, handler: Handler, *, qos: int = 1) -> Subscription:
        return Subscription(lambda received: None, handler)

    def publish(self, topic: str, payload: bytes, *, wait: float = 0) -> None: ...

    def subscribe(self, topic: str, handler: Handler) -> Subscription:
        return Subscription(lambda received: None, handler)

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        self.asked.append((topic, json.loads(payload)))


@pytest.fixture
def worker(tmp_path: Path) -> tuple[Updater, Mute]:
    ipc = Mute()
    context = Context(ipc=ipc, health=Health("a", "1"), work=tmp_path, root=tmp_path, thing_name=THING)
    return Updater(context, Config()), ipc


def job_in_hand() -> Journal:
    content = b"size"
    return Journal(job_id="j", execution_number=1, document=parse(document(content, "2.0.0", "https://host/x")))


def test_a_download_waits_for_an_unanswered_report_once_in_an_interval(
    worker: tuple[Updater, Mute], monkeypatch: pytest.MonkeyPatch
) -> None:
    updater, ipc = worker
    monkeypatch.setattr("model_updater.updater.PROGRESS_S", 0.2)
    monkeypatch.setattr("model_updater.jobs.REPLY_TIMEOUT_S", 0.3)
    held = job_in_hand()
    assert held.document is not None
    progress = updater._installation(held, held.document)._tools.progress
    eventually(lambda: progress(1) or ipc.asked, 5, "a report")
    progress(1)
    progress(1)
    ((topic, report),) = ipc.asked
    assert (topic, report["status"]) == (f"{BASE}/j/update", "IN_PROGRESS")
    details = {"step": "download", "progress": "25 %", "model": MODEL, "from_version": "none", "to_version": "2.0.0"}
    assert report["statusDetails"] == details


def activation() -> ModelActivate:
    return ModelActivate(model=MODEL, version="2.0.0", path="/x", request_id="j/1")


@pytest.mark.parametrize("required", [True, False])
def test_silence_is_consent_where_configured(worker: tuple[Updater, Mute], required: bool) -> None:
    updater, _ = worker
    updater._rules = Config(confirmation_timeout_s=0.1, require_confirmation=required)
    assert updater._confirm(activation()) == (f"nobody who uses {MODEL} answered within 0.1 s" if required else "")


def test_the_core_that_goes_away_is_no_fault_of_the_job(worker: tuple[Updater, Mute], tmp_path: Path) -> None:
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
    worker: tuple[Updater, Mute], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def journal(device: Device) -> str:
    try:
        return (device.work / "journal" / "job.json").read_text()
    except FileNotFoundError:
        return ""
