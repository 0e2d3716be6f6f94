"""Somebody approves a model; nobody does anything more; the device answers with it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import Start
from localdev.cloud import LocalCloud
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.iot_jobs import IotJobs
from ota_support import colour_files
from registry_support import SIGNING_KEY, ModelRegistry
from support import eventually

THING = "laptop"


@pytest.fixture
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(TEMPLATE, {"SigningKeySecret": SIGNING_KEY}) as running:
        yield running


@pytest.fixture
def registry(cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelRegistry]:
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    iot = cloud.aws.client("iot")
    iot.create_thing(thingName=THING)
    iot.add_thing_to_thing_group(thingGroupName="edgeml-devices", thingName=THING)
    with IotJobs(cloud.aws, *cloud.mqtt_address):
        yield ModelRegistry(cloud, tmp_path)


def execution(iot: Any) -> dict[str, Any]:
    """Of the newest job on the device."""
    summaries = iot.list_job_executions_for_thing(thingName=THING)["executionSummaries"]
    newest = max(summaries, key=lambda each: each["jobExecutionSummary"]["queuedAt"])["jobId"]
    return dict(iot.describe_job_execution(jobId=newest, thingName=THING)["execution"])


def told_again(cloud: LocalCloud, package: str) -> None:
    """SageMaker may tell of one approval more than once."""
    detail = {"ModelApprovalStatus": "Approved", "ModelPackageGroupName": "edgeml-models", "ModelPackageArn": package}
    kind = {"Source": "aws.sagemaker", "DetailType": "SageMaker Model Package State Change"}
    cloud.aws.client("events").put_events(Entries=[kind | {"Detail": json.dumps(detail)}])
    cloud.drain()


def answers(seen: list[str], version: str) -> None:
    eventually(lambda: seen[-1:] == [version], 20, f"results of {version}")


def test_what_is_approved_answers_on_the_device_and_what_is_rejected_never_reaches_it(
    start: Start, registry: ModelRegistry, cloud: LocalCloud, tmp_path: Path
) -> None:
    rings = tmp_path / "rings"
    rings.mkdir()
    pipeline = {
        "source": {"type": "camera", "camera": "front"},
        "backend": {"type": "onnx", "model": "Colour"},
        "iot_core": {"enabled": False},
    }
    camera = {"type": "test_pattern", "width": 64, "height": 48, "fps": 5}
    seen: list[str] = []
    iot = cloud.aws.client("iot")
    first, second, third = (registry.register(colour_files(version)) for version in ("1.0.0", "2.0.0", "3.0.0"))
    with start(
        {
            "camera_capture": {"ring_directory": str(rings), "cameras": {"front": camera}},
            "inferencer": {"ring_directory": str(rings), "pipelines": {"colours": pipeline}},
            "model_updater": {"allow_http": True, "public_key": registry.signer.public, "min_free_bytes": 0},
        }
    ) as core:
        core.subscribe(
            "edgeml/inference/colours", lambda topic, payload: seen.append(json.loads(payload)["model"]["version"])
        )
        for version, package in (("1.0.0", first), ("3.0.0", third)):
            registry.decide(package, "Approved")
            answers(seen, version)
            eventually(lambda: execution(iot)["status"] == "SUCCEEDED", 5, "success told to the cloud")
        told_again(cloud, third)
        registry.decide(second, "Rejected")
        assert len(registry.jobs()) == 2
        registry.decide(second, "Approved")  # after a newer one: the device refuses what is older
        eventually(lambda: execution(iot)["status"] == "FAILED", 10, "a refusal")
        assert "version 2.0.0 is not newer than 3.0.0" in execution(iot)["statusDetails"]["detailsMap"]["reason"]
        assert seen[-1] == "3.0.0"
    assert set(seen) == {"1.0.0", "3.0.0"}
