"""The component as a process outside Greengrass, its IoT Core messages carried to the local cloud's IoT Jobs."""

import json
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localdev.cloud import LocalCloud
from localdev.cloud.iot_jobs import IotJobs
from model_updater.journal import STEPS
from model_updater.updater import MAX_INTERRUPTIONS
from ota_support import MODEL, Signer, bundle_files, document, tiny_model, zipped
from support import eventually
from updater_support import CONFIG, THING, Device, journal


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


@pytest.fixture(scope="module")
def jobs(cloud: LocalCloud) -> Iterator[IotJobs]:
    with IotJobs(cloud.aws, *cloud.mqtt_address) as running:
        cloud.aws.client("iot").create_thing(thingName=THING)
        yield running


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
        running.process.configure(changed)
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
        eventually(device.idle, 5, "tidied up")
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
