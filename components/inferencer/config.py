"""Configuration of edgeml.Inferencer."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,48}$")]


class CameraSource(msgspec.Struct, frozen=True, tag="camera", tag_field="type"):
    camera: Annotated[Name, Meta(description="Camera whose frame ring is read")]
    policy: Annotated[
        Literal["newest", "every"], Meta(description="Skip to the newest frame, or take each one still in the ring")
    ] = "newest"
    max_fps: Annotated[float, Meta(ge=0, le=1000, description="At most so many frames per second; 0 for no limit")] = 0


Source = CameraSource


class OnnxBackend(msgspec.Struct, frozen=True, tag="onnx", tag_field="type"):
    model: Annotated[Name, Meta(description="Name of an installed model bundle (edgeml.model.<name> or an update)")]
    path: Annotated[str, Meta(description="Folder of a bundle, instead of an installed one")] = ""
    providers: Annotated[
        tuple[str, ...], Meta(description="ONNX Runtime execution providers, the preferred one first")
    ] = ("CPUExecutionProvider",)
    threads: Annotated[int, Meta(ge=0, le=256, description="Threads of one inference; 0 lets ONNX Runtime choose")] = 1
    optimization: Annotated[
        Literal["all", "extended", "basic", "off"], Meta(description="Graph optimization level")
    ] = "all"


Backend = OnnxBackend


class Local(msgspec.Struct, frozen=True):
    enabled: Annotated[bool, Meta(description="Publish each result on edgeml/inference/<pipeline>")] = True
    empty: Annotated[bool, Meta(description="Publish results in which nothing was found, too")] = True


class IotCore(msgspec.Struct, frozen=True):
    enabled: Annotated[bool, Meta(description="Publish results to AWS IoT Core")] = True
    topic: Annotated[str, Meta(min_length=1, max_length=256, description="Topic")] = "ModelInference"
    every: Annotated[int, Meta(ge=1, le=1_000_000, description="Publish each Nth result that is not empty")] = 1
    qos: Annotated[int, Meta(ge=0, le=1, description="MQTT quality of service")] = 1


class Crops(msgspec.Struct, frozen=True):
    bucket: Annotated[str, Meta(description="S3 bucket for crops of what was detected; empty uploads nothing")] = ""
    prefix: Annotated[str, Meta(description="Keys are <prefix>/<thing>/<yyyy>/<mm>/<dd>/<id>-<n>.jpg")] = "faces"
    every: Annotated[int, Meta(ge=1, le=1_000_000, description="Crop each Nth result that is not empty")] = 1
    margin: Annotated[float, Meta(ge=0, le=2, description="Added on each side, as a fraction of the box")] = 0.2
    min_pixels: Annotated[int, Meta(ge=1, le=4096, description="Boxes with a shorter side below this are left")] = 16
    quality: Annotated[int, Meta(ge=10, le=100, description="JPEG quality")] = 90


class Pipeline(msgspec.Struct, frozen=True):
    source: Annotated[Source, Meta(description="Where inputs come from")]
    backend: Annotated[Backend, Meta(description="What runs the model")]
    score_threshold: Annotated[
        float, Meta(ge=0, le=1, description="Results below it are left out; 0 takes the model's own threshold")
    ] = 0
    top_k: Annotated[int, Meta(ge=1, le=1000, description="Classification: labels per result")] = 5
    local: Annotated[Local, Meta(description="Results on local topics")] = Local()
    iot_core: Annotated[IotCore, Meta(description="Results on AWS IoT Core")] = IotCore(enabled=False)
    crops: Annotated[Crops, Meta(description="Crops of detections in S3")] = Crops()


class Config(msgspec.Struct, frozen=True):
    pipelines: Annotated[dict[Name, Pipeline], Meta(description="Pipelines by name")] = {}
    ring_directory: Annotated[str, Meta(description="Folder of the frame rings, as CameraCapture has it")] = "/dev/shm"  # noqa: S108
    crop_spool_bytes: Annotated[
        int, Meta(ge=0, le=2**40, description="Disk space for crops that wait for S3; the oldest go first")
    ] = 256 * 2**20
    result_spool_bytes: Annotated[
        int, Meta(ge=0, le=2**40, description="Disk space for results that wait for IoT Core; the oldest go first")
    ] = 16 * 2**20
