"""A device that runs the ModelUpdater outside Greengrass, beside the local cloud's IoT Jobs."""

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgeml import models
from jobs_support import status
from localdev.cloud import LocalCloud
from localdev.cloud.iot_jobs import IotJobs
from localdev.mqtt_end import let_go
from ota_support import MODEL, FileServer, bundle_files, document, zipped
from support import Standalone, eventually

THING = "turbine-7"
BASE = f"$aws/things/{THING}/jobs"
KILLED = Path(__file__).parent / "model_updater" / "killed.py"
CONFIG = {"allow_http": True, "min_free_bytes": 0, "confirmation_timeout_s": 20, "poll_interval_s": 600}


class Device:
    """A device that is switched on and off, with a user of the model that answers activations."""

    def __init__(self, cloud: LocalCloud, jobs: IotJobs, root: Path) -> None:
        self._iot, self.cloud = cloud.aws.client("iot"), cloud
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
        return status(job_id, THING)

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
        self._client.connect(*self._device.cloud.mqtt_address)
        self.process.__enter__()  # a message may come as soon as the client's thread runs
        self._client.loop_start()
        assert ready.wait(30)
        self._carrier = threading.Thread(target=self._carry, daemon=True)
        self._carrier.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.off()
        self._ended.set()
        self._carrier.join(5)
        let_go(self._client)

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


def journal(device: Device) -> str:
    try:
        return (device.work / "journal" / "job.json").read_text()
    except FileNotFoundError:
        return ""
