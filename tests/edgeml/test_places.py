"""Topics, buckets and keys: what can never work is refused as configuration, whatever the component."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from camera_capture.config import Config as Camera
from camera_capture.snapshots import check_places as check_camera
from edge_impulse_runner.component import topics
from edge_impulse_runner.config import Config as Runner
from edgeml.config import load
from edgeml.edge_impulse.parameters import Parameters, interpret
from edgeml.errors import ConfigError
from edgeml.fields import topic_problem
from edgeml.ipc import StandaloneIpc
from inferencer.assembly import check as check_inferencer
from inferencer.config import Config as Inferencer
from log_shipper.config import Config as Shipper
from log_shipper.sinks.iot_core import IotCoreSink
from serial_scraper.config import Config as Serial
from serial_scraper.service import plans

THING = "thing-" + "x" * 58

BAD_TOPICS = {
    "8 slashes": "a/b/c/d/e/f/g/h/i",
    "a +": "a/+/b",
    "a #": "a/#",
    "a NUL": "a\0b",
    "257 bytes": "a" * 257,
    "200 letters, 400 bytes": "ü" * 200,
}
GOOD_TOPICS = ["a", "/a/", "a/b/c/d/e/f/g/h", "größe/1", "a b", "a" * 256, "$aws/rules/rule/a/b/c/d/e/f/g/h", "ü" * 128]
BAD_BUCKETS = ["ab", "Upper", "under_score", "a/b", "-a-", "b" * 64, "s3://bucket", "bucket\n", "b u"]
GOOD_BUCKETS = ["", "abc", "my.bucket-1", "b" * 63]
BAD_PREFIXES = ["/faces", "faces/", "a//b", "/", "a\tb", "ü" * 512]
GOOD_PREFIXES = ["", "faces", "a/b/c", "grün 100%"]


def pipeline(**sinks: Any) -> dict[str, Any]:
    timer = {"type": "timer", "file": "x"}
    return {"pipelines": {"p": {"source": timer, "backend": {"type": "onnx", "model": "M"}, **sinks}}}


def inferencer(**sinks: Any) -> None:
    check_inferencer(load(Inferencer, pipeline(**sinks)).pipelines, THING)


def camera(**snapshots: Any) -> None:
    check_camera(load(Camera, {"cameras": {"front": {"snapshots": snapshots}}}).cameras, THING)


def serial(**port: Any) -> None:
    plans(load(Serial, {"ports": {"mcu": {"format": "jsonl", **port}}}), "00:11")


def prefixed(kind: Any) -> Callable[[str], None]:
    def check(prefix: str) -> None:
        config = load(kind, {"topic_prefix": prefix})
        if kind is Serial:
            plans(config, "00:11")
        else:
            topics(config, interpret(config.parameters))

    return check


def shipper(topic: str) -> None:
    config = load(Shipper, {"iotCore": {"topic": topic}}).iot_core
    ipc = StandaloneIpc.__new__(StandaloneIpc)
    IotCoreSink(config, ipc, THING, Path("spool.db")).close()


TOPIC_FIELDS: dict[str, Callable[[str], None]] = {
    "pipelines.p.iot_core.topic": lambda topic: inferencer(iot_core={"topic": topic}),
    "pipelines.p.telemetry.topic": lambda topic: inferencer(telemetry={"topic": topic}),
    "ports.mcu.iot_core.topic": lambda topic: serial(iot_core={"topic": topic}),
    "iotCore.topic": shipper,
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("field", TOPIC_FIELDS)
@pytest.mark.parametrize("topic", BAD_TOPICS.values(), ids=BAD_TOPICS.keys())
def test_a_topic_that_can_never_work_is_refused(field: str, topic: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TOPIC_FIELDS[field](topic)
    assert caught.value.path == field


@pytest.mark.parametrize("field", TOPIC_FIELDS)
@pytest.mark.parametrize("topic", GOOD_TOPICS, ids=ascii)
def test_a_topic_that_works_is_taken(field: str, topic: str) -> None:
    TOPIC_FIELDS[field](topic)


@pytest.mark.parametrize("kind", [Runner, Serial], ids=["runner", "serial"])
@pytest.mark.parametrize("prefix", ["a/b/c/d/e/f", "+", "a/#", "p" * 240], ids=ascii)
def test_a_prefix_is_judged_by_the_topics_it_makes(kind: Any, prefix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prefixed(kind)(prefix)
    assert caught.value.path == "topic_prefix"
    prefixed(kind)("a/b/c/d")


def test_names_that_are_filled_in_count() -> None:
    shipper("{thingName}/{componentName}")
    with pytest.raises(ConfigError, match="256 bytes"):
        shipper("{thingName}" * 5)


@pytest.mark.parametrize(
    ("path", "check"),
    [
        ("pipelines.p.crops.bucket", lambda bucket: inferencer(crops={"bucket": bucket})),
        ("cameras.front.snapshots.s3_bucket", lambda bucket: camera(s3_bucket=bucket)),
    ],
    ids=["crops", "snapshots"],
)
def test_buckets(path: str, check: Callable[[str], None]) -> None:
    for bucket in BAD_BUCKETS:
        with pytest.raises(ConfigError) as caught:
            check(bucket)
        assert caught.value.path == path
    for bucket in GOOD_BUCKETS:
        check(bucket)


@pytest.mark.parametrize(
    ("path", "check"),
    [
        ("pipelines.p.crops.prefix", lambda prefix: inferencer(crops={"prefix": prefix})),
        ("cameras.front.snapshots.s3_prefix", lambda prefix: camera(s3_prefix=prefix)),
    ],
    ids=["crops", "snapshots"],
)
def test_prefixes(path: str, check: Callable[[str], None]) -> None:
    for prefix in BAD_PREFIXES:
        with pytest.raises(ConfigError) as caught:
            check(prefix)
        assert caught.value.path == path
    for prefix in GOOD_PREFIXES:
        check(prefix)


@pytest.mark.parametrize("bucket", [bucket for bucket in BAD_BUCKETS if bucket.strip() == bucket])
def test_the_peers_parameters_are_never_refused_and_say_what_is_wrong(bucket: str) -> None:
    settings = interpret(Parameters(enable_cache_to_s3="yes", s3_bucket=bucket))
    assert settings.s3_bucket == ""
    assert any("can never be the name of a bucket" in note for note in settings.notes)
    assert interpret(Parameters(enable_cache_to_s3="yes", s3_bucket="my-bucket")).s3_bucket == "my-bucket"


def test_half_a_character_is_no_topic() -> None:
    assert "surrogate" in topic_problem("a\ud800")
    assert topic_problem("") != ""


def test_the_defaults_are_valid() -> None:
    for kind in (Inferencer, Camera, Runner, Serial, Shipper):
        load(kind, msgspec.to_builtins(kind()))
