"""Configuration of edgeml.EdgeImpulseLinux: the peers' `Parameters`, cameras and sensors."""

from typing import Annotated

import msgspec
from msgspec import Meta

from edgeml.edge_impulse.parameters import Parameters


class Sensor(msgspec.Struct, frozen=True):
    """Values that arrive on a local topic, or from edgeml.SerialScraper, at a steady rate."""

    topic: Annotated[str, Meta(description="Local topic of the samples")] = ""
    serial_port: Annotated[str, Meta(description="Or: port of edgeml.SerialScraper whose records they are")] = ""
    axes: Annotated[
        list[str], Meta(description="Fields of a sample, dotted where nested, as record.x", max_length=64)
    ] = []
    units: Annotated[list[str], Meta(description="Unit of each axis, as m/s2; missing ones are N/A")] = []
    frequency_hz: Annotated[float, Meta(gt=0, le=100_000, description="Samples per second")] = 100.0
    max_length_s: Annotated[int, Meta(ge=1, le=86_400, description="Longest sample that Studio may ask for")] = 300


class Config(msgspec.Struct, frozen=True, kw_only=True):
    parameters: Annotated[Parameters, Meta(description="As Edge Impulse's own component takes them")] = msgspec.field(
        name="Parameters", default_factory=Parameters
    )
    cameras: Annotated[list[str], Meta(description="Cameras of edgeml.CameraCapture that Studio may see")] = (
        msgspec.field(default_factory=lambda: ["camera"])
    )
    ring_directory: Annotated[str, Meta(description="Folder of the frame rings")] = "/dev/shm"  # noqa: S108
    sensors: Annotated[dict[str, Sensor], Meta(description="By the name they have in Studio")] = {}
    device_id: Annotated[
        str, Meta(description="Id in Studio; empty: the MAC address of the default route", max_length=100)
    ] = ""
    snapshot_fps: Annotated[float, Meta(gt=0, le=30, description="Frames per second of the live view")] = 5.0
    jpeg_quality: Annotated[int, Meta(ge=1, le=100, description="Of sampled images")] = 95
