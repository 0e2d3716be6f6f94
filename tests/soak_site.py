"""Cameras, boards, models, pictures and clouds for a soak: all that the components meet."""

import csv
import itertools
import json
import os
import secrets
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed

from integration.test_model_updater import Registry
from localdev.cloud import LocalCloud
from localdev.cloud.iot_jobs import IotJobs
from localdev.demo.observer import Observer
from localdev.simulators.eim import Options, write_launcher
from localdev.simulators.interaction import FEATURES, TARGET, interactions
from localdev.simulators.mcu import Mcu, detections
from localdev.simulators.studio import FakeStudio
from localdev.simulators.turbine import Publisher
from monitor_support import QUIET
from ota_support import colour_files
from soak_support import Heard

SECRET = "EI_API_KEY"


BUCKET = "soak-snapshots"


THING = "laptop"  # the core's, which is not told another one


TAG = f"k{os.getpid():x}"  # begins the names of the shared memory of this test's model


class Site:
    """Cameras, boards, models, pictures and clouds: all that the components meet."""

    def __init__(self, folder: Path, cloud: LocalCloud, profile: str, stack: ExitStack) -> None:
        self.folder, self.cloud, self.heard = folder, cloud, Heard()
        self.rings = folder / "rings"
        self.rings.mkdir()
        cloud.aws.client("s3").create_bucket(Bucket=BUCKET)
        stack.enter_context(IotJobs(cloud.aws, *cloud.mqtt_address))
        self.registry = Registry(cloud)
        self.studio = stack.enter_context(FakeStudio())
        self._keep_key(profile)
        self.model = write_launcher(folder / "door.eim", Options(kind="box", width=96, height=96, tag=TAG))
        self.board = stack.enter_context(Mcu(folder / "ttyMCU", detections(), interval_s=0.2))
        stack.enter_context(Publisher(*cloud.mqtt_address, rate=20))
        self.table = folder / "interactions.csv"
        with self.table.open("w", newline="") as file:
            csv.writer(file).writerows([[*FEATURES, TARGET], *itertools.islice(interactions(7), 200)])
        observer = Observer(cloud.mqtt_address)
        stack.callback(observer.close)
        observer.hear("ModelInference", lambda topic, payload: self.heard.add("IoT: ModelInference"))
        observer.hear("/edgeimpulse/device/+/inference/output", self._edge_impulse)
        observer.hear("edgeml/device/+/report", lambda topic, payload: self.heard.add("IoT: report"))
        observer.hear("edgeml/device/+/look/reply", lambda topic, payload: self.heard.add("IoT: look"))
        self._observer = observer
        self._version, self._job, self._offered_at, self._sampled_at, self._looked_at = 0, "", 0.0, 0.0, 0.0

    def _keep_key(self, profile: str) -> None:
        key = json.dumps({"ei_api_key": self.studio.api_key})
        self.secrets = self.folder / "secrets.json"
        self.secrets.write_text(json.dumps({SECRET: key} if profile == "java" else {}))
        if profile == "lite":
            self.cloud.aws.client("secretsmanager").create_secret(Name=SECRET, SecretString=key)

    def _edge_impulse(self, topic: str, payload: bytes) -> None:
        self.heard.add(f"IoT: {topic.split('/')[3].split('_')[0]}")

    def configuration(self, root: Path) -> dict[str, dict[str, Any]]:
        rings = {"ring_directory": str(self.rings)}
        camera = {"type": "test_pattern", "width": 1280, "height": 720, "fps": 10}
        snapshots = {"every_s": 5, "s3_bucket": BUCKET}
        parameters = {"iotcore_backoff": 1, "metrics_sleeptime_ms": 10000}
        runner = {**parameters, "device_name": "SoakCamera", "ei_local_model_file": str(self.model)}
        board = {"ports": {"board": {"device": str(self.folder / "ttyMCU")}}}
        system = {"systemLogsConfiguration": {"uploadToCloudWatch": True}}
        return {
            "camera_capture": {**rings, "cameras": {"front": {**camera, "snapshots": snapshots}}},
            "edge_impulse_linux": {**rings, "cameras": ["front"], "device_id": "soak"},
            "edge_impulse_runner": {"Parameters": runner, "input": {**rings, "camera": "front", "max_fps": 3}},
            "inferencer": {**rings, "pipelines": self._pipelines(root)},
            "log_shipper": {"logsUploaderConfiguration": system, "periodicUploadIntervalSec": 1},
            "model_updater": {"allow_http": True, "public_key": self.registry.signer.public, "min_free_bytes": 0},
            "monitor": {**QUIET, **rings, "report_s": 5, "look": "pictures", "look_bucket": BUCKET},
            "sample_requester": {"interval_s": 2},
            "serial_scraper": {"Parameters": {**parameters, "device_name": "SoakBoard"}, **board},
        }

    def _pipelines(self, root: Path) -> dict[str, Any]:
        camera = {"type": "camera", "camera": "front", "max_fps": 2}
        host, port = self.cloud.mqtt_address
        pictures = str(root / "work" / "edgeml.SampleRequester" / "pictures")
        caller = {"type": "caller", "file": str(self.table), "target": TARGET, "rate_hz": 2}
        sources = {
            "colours": (camera, "Colour"),
            "faces": (camera, "FaceDetector"),
            "turbine": ({"type": "mqtt", "host": host, "port": port}, "WindTurbine"),
            "duration": (caller, "Duration"),
            "pictures": ({"type": "request", "allowed_dirs": [pictures]}, "ImageClassifier"),
        }
        pipelines: dict[str, Any] = {
            name: {"source": source, "backend": {"type": "onnx", "model": model}}
            for name, (source, model) in sources.items()
        }
        pipelines["turbine"] |= {"verdict_every_s": 1, "iot_core": {"enabled": True}}
        return pipelines

    def tick(self) -> None:
        """Ask for a new model, for a sample and for a look now and then, as people do."""
        now = time.monotonic()
        self._look(now)
        if now - self._offered_at > 30 and self.job_has_ended():
            self._version += 1
            self._job = self.registry.offer(f"1.0.{self._version}", colour_files(f"1.0.{self._version}"))
            self._offered_at = now
        if now - self._sampled_at > 5 and self.studio.connected:
            self._sampled_at = now
            with suppress(ConnectionError, ConnectionClosed):
                self.studio.sample("Camera (1280x720)", "door")

    def flows(self, flow: str, since: float) -> bool:
        """As Heard.flows; a look that nobody asks for does not come."""
        self._look(time.monotonic())
        return self.heard.flows(flow, since)

    def _look(self, now: float) -> None:
        if now - self._looked_at > 10:
            self._looked_at = now
            question = {"id": secrets.token_hex(16), "at": time.time(), "pictures": True}
            self._observer.publish(f"edgeml/device/{THING}/look", json.dumps(question).encode())

    def job_has_ended(self) -> bool:
        """Whether the job offered last is done. AssertionError if it failed."""
        execution = self.registry.execution(self._job) if self._job else {"status": "SUCCEEDED"}
        assert execution["status"] in ("not rolled out yet", "QUEUED", "IN_PROGRESS", "SUCCEEDED"), execution
        return bool(execution["status"] == "SUCCEEDED")

    @property
    def updates(self) -> int:
        return self._version

    def lines_in_cloudwatch(self) -> Counter[tuple[str, str]]:
        logs, lines = self.cloud.aws.client("logs"), Counter[tuple[str, str]]()
        for group in logs.describe_log_groups(logGroupNamePrefix="/aws/greengrass")["logGroups"]:
            name = group["logGroupName"].rpartition("/")[2]
            for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
                for event in page["events"]:
                    lines.update((name, line) for line in event["message"].splitlines() if line)
        return lines
