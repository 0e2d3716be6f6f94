"""From a job document in S3 to results of the new model: the Lambda handler, IoT Jobs and components on a core."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

import jobs_support
from edgeml.component import Context
from edgeml.errors import DisconnectedError
from edgeml.health import Health
from edgeml.ipc import GreengrassIpc
from integration.conftest import Start
from localdev.cloud import LocalCloud, events
from localdev.cloud.iot_jobs import IotJobs
from localdev.core import LocalCore
from model_updater.config import Config
from model_updater.updater import Updater
from ota_support import FileServer, LambdaContext, Signer, colour_files, document, load_handler, zipped
from support import eventually

BUCKET = "edgeml-models"
THING = "laptop"


class Registry:
    """Puts artifacts and job documents into S3 and hands the event to the handler, as S3 and Lambda do."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._s3, self._iot = cloud.aws.client("s3"), cloud.aws.client("iot")
        self.signer = Signer()
        self._s3.create_bucket(Bucket=BUCKET)
        arn = self._iot.create_thing_group(thingGroupName="devices")["thingGroupArn"]
        self._iot.create_thing(thingName=THING)
        self._iot.add_thing_to_thing_group(thingGroupName="devices", thingName=THING)
        settings = {"THING_GROUP_ARN": arn, "ARTIFACT_BUCKET": BUCKET, "URL_ROLE_ARN": "arn:aws:iam::1:role/urls"}
        self._app = load_handler("create_iot_job", {**cloud.environment(), **settings})

    def offer(self, version: str, files: dict[str, bytes], **changes: Any) -> str:
        """The job's id."""
        artifact, key = zipped(files), f"{version}/edgeml/Colour.zip"
        self._s3.put_object(Bucket=BUCKET, Key=key, Body=artifact)
        url = f"${{aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/{BUCKET}/{key}}}"
        job = self.signer.signed({**document(artifact, version, url, name="Colour"), **changes})
        body, name = json.dumps(job).encode(), f"{version}/edgeml/job.json"
        etag = self._s3.put_object(Bucket=BUCKET, Key=name, Body=body)["ETag"].strip('"')
        event = events.s3(BUCKET, name, "ObjectCreated:Put", len(body), etag, "")
        (job_id,) = self._app.handler(event, LambdaContext())["created"]
        return str(job_id)

    def offer_document(self, body: dict[str, Any]) -> str:
        """A job without the handler; its id."""
        arn = self._iot.describe_thing(thingName=THING)["thingArn"]
        self._iot.create_job(jobId="direct", targets=[arn], document=json.dumps(body))
        return "direct"

    def execution(self, job_id: str) -> dict[str, Any]:
        try:
            return dict(self._iot.describe_job_execution(jobId=job_id, thingName=THING)["execution"])
        except self._iot.exceptions.ResourceNotFoundException:
            return {"status": "not rolled out yet"}

    def ended(self, job_id: str, status: str) -> dict[str, str]:
        """Details of the execution, once it has that status."""
        eventually(lambda: jobs_support.status(job_id, THING) == status, 25, f"{job_id} {status}")
        return dict(self.execution(job_id)["statusDetails"]["detailsMap"])


@pytest.fixture
def registry(cloud: LocalCloud) -> Iterator[Registry]:
    with IotJobs(cloud.aws, *cloud.mqtt_address):
        yield Registry(cloud)
        cloud.aws.reset()


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_a_model_is_replaced_while_frames_flow_and_bad_ones_change_nothing(
    profile: str, start: Start, registry: Registry, tmp_path: Path
) -> None:
    rings = tmp_path / "rings"
    rings.mkdir()
    camera = {"type": "test_pattern", "width": 64, "height": 48, "fps": 20, "slots": 16}
    pipeline = {
        "source": {"type": "camera", "camera": "front", "policy": "every"},
        "backend": {"type": "onnx", "model": "Colour"},
        "iot_core": {"enabled": False},
    }
    seen: list[tuple[int, str]] = []
    lock = threading.Lock()

    def result(topic: str, payload: bytes) -> None:
        body = json.loads(payload)
        with lock:
            seen.append((body["source"]["frame_id"], body["model"]["version"]))

    with start(
        {
            "camera_capture": {"ring_directory": str(rings), "cameras": {"front": camera}},
            "inferencer": {"ring_directory": str(rings), "pipelines": {"colours": pipeline}},
            "model_updater": {"allow_http": True, "public_key": registry.signer.public, "min_free_bytes": 0},
        },
        profile=profile,
    ) as core:
        core.subscribe("edgeml/inference/colours", result)
        first = registry.offer("1.0.0", colour_files("1.0.0"))
        assert registry.ended(first, "SUCCEEDED")["from_version"] == "none"
        eventually(lambda: (seen or [(0, "")])[-1][1] == "1.0.0", 10, "results of the first version")

        second = registry.offer("2.0.0", colour_files("2.0.0"))
        details = registry.ended(second, "SUCCEEDED")
        assert (details["from_version"], details["to_version"]) == ("1.0.0", "2.0.0")
        eventually(lambda: seen[-1][1] == "2.0.0", 10, "results of the second version")

        corrupt = registry.offer("3.0.0", {**colour_files("3.0.0"), "model.onnx": b"garbage"})
        assert "sha256" in registry.ended(corrupt, "FAILED")["reason"]
        strange = registry.offer("4.0.0", colour_files("4.0.0", decoder="from_the_future"))
        assert "edgeml.Inferencer refused the model" in registry.ended(strange, "FAILED")["reason"]
        older = registry.offer("1.5.0", colour_files("1.5.0"))
        assert "not newer than 2.0.0" in registry.ended(older, "FAILED")["reason"]
        count = len(seen)
        eventually(lambda: len(seen) > count + 10, 10, "results after the refusals")
        assert seen[-1][1] == "2.0.0"
    with lock:
        frames, versions = [frame for frame, _ in seen], [version for _, version in seen]
    switch = versions.index("2.0.0")
    assert versions == ["1.0.0"] * switch + ["2.0.0"] * (len(versions) - switch)
    around = frames[max(0, switch - 20) : switch + 20]
    assert around == list(range(around[0], around[0] + len(around))), "no frame is dropped in the switch"
    assert list(rings.iterdir()) == []


class Updating:
    """The updater's thread on a connection of its own to a core; `error` is what ended it."""

    def __init__(self, core: LocalCore, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        access = {
            f"aws.greengrass.ipc.{service}": {"p": {"operations": ["*"], "resources": ["*"]}}
            for service in ("pubsub", "mqttproxy")
        }
        monkeypatch.setenv("SVCUID", core.add_principal("edgeml.ModelUpdater", access))
        monkeypatch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", str(core.socket))
        self.ipc = GreengrassIpc(lambda error: None)
        health = Health("edgeml.ModelUpdater", "1.0.0")
        self._context = Context(ipc=self.ipc, health=health, work=work, root=work, thing_name=THING)
        self._updater = Updater(self._context, Config(allow_http=True, min_free_bytes=0))
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._updater.run()
        except DisconnectedError as error:
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._context.stopping.set()
        self._updater.ask_to_stop()
        self.ended()
        self.ipc.close()

    def ended(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_a_core_that_goes_away_in_the_middle_of_a_job_fails_nothing(
    cloud: LocalCloud, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, artifact = tmp_path / "work", zipped(colour_files("1.0.0"))
    work.mkdir()
    with FileServer(pause=(paused := threading.Event())) as server:
        job = registry.offer_document(document(artifact, "1.0.0", server.add(artifact), name="Colour"))
        with ExitStack() as power:
            core = power.enter_context(LocalCore(tmp_path / "gg", mqtt_url=cloud.mqtt_url, thing_name=THING))
            with Updating(core, work, monkeypatch) as updating:
                assert server.reached.wait(20)
                power.close()
                paused.set()
                updating.ended()
                assert updating.error is not None, "the next word to the core tells that it is gone"
        assert registry.execution(job)["status"] == "IN_PROGRESS"
        with LocalCore(tmp_path / "gg", mqtt_url=cloud.mqtt_url, thing_name=THING) as core:
            core.subscribe("edgeml/model/Colour/activate", lambda topic, payload: accept(core, payload))
            with Updating(core, work, monkeypatch):
                registry.ended(job, "SUCCEEDED")


def accept(core: LocalCore, payload: bytes) -> None:
    asked = json.loads(payload)
    kept = {key: asked[key] for key in ("model", "version", "request_id")}
    answer = {**kept, "status": "accepted", "component": "test", "reason": ""}
    threading.Thread(target=core.publish, args=("edgeml/model/Colour/status", answer)).start()  # not on the core's own
