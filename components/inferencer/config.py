"""Configuration of edgeml.Inferencer. What a kind of source, backend or sink is told stands in its module."""

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from edgeml.fields import ClockWait, Name
from edgeml.kinds import union
from inferencer import backends, sinks, sources
from inferencer.parts import BackendSettings, SinkSettings, SourceSettings
from inferencer.privacy import Privacy
from inferencer.sinks.crops import Crops
from inferencer.sinks.events import Events
from inferencer.sinks.iot_core import IotCore
from inferencer.sinks.local import Local
from inferencer.tasks.turbine import VerdictEvery
from inferencer.tasks.turbine.telemetry import Telemetry
from inferencer.tracking import Tracking

if TYPE_CHECKING:
    Source = SourceSettings
    Backend = BackendSettings
    Sink = SinkSettings
else:
    Source = union("inferencer.sources", sources.KINDS)
    Backend = union("inferencer.backends", backends.KINDS)
    Sink = union("inferencer.sinks", sinks.KINDS)


class Pipeline(msgspec.Struct, frozen=True):
    source: Annotated[Source, Meta(description="Where inputs come from")]
    backend: Annotated[Backend, Meta(description="What runs the model")]
    fallback: Annotated[Backend | None, Meta(description="What answers while the backend fails")] = None
    verdict_every_s: VerdictEvery = 1.0
    score_threshold: Annotated[
        float, Meta(ge=0, le=1, description="Results below it are left out; 0 takes the model's own threshold")
    ] = 0
    top_k: Annotated[int, Meta(ge=1, le=1000, description="Classification: labels per result")] = 5
    tracking: Annotated[
        Tracking | None, Meta(description="Detections of a camera or timer: follow objects from frame to frame")
    ] = None
    privacy: Annotated[
        Privacy | None, Meta(description="Detections: what is made unrecognisable in every picture, for good")
    ] = None
    local: Annotated[Local, Meta(description="Results on local topics")] = Local()
    iot_core: Annotated[IotCore, Meta(description="Results on AWS IoT Core")] = IotCore(enabled=False)
    crops: Annotated[Crops, Meta(description="Crops of detections in S3")] = Crops()
    events: Annotated[Events, Meta(description="What happens to objects, where there is tracking")] = Events()
    telemetry: Annotated[Telemetry, Meta(description="Turbine readings and verdicts")] = Telemetry()
    sinks: Annotated[dict[Name, Sink], Meta(description="Further places for results, by a name of your own")] = {}

    def sink_settings(self) -> dict[str, SinkSettings]:
        """The settings of its sinks, by where they stand in the configuration."""
        fields: dict[str, SinkSettings] = {name: getattr(self, name) for name in sinks.FIELDS}
        return fields | {f"sinks.{name}": settings for name, settings in self.sinks.items()}


class Config(msgspec.Struct, frozen=True):
    pipelines: Annotated[dict[Name, Pipeline], Meta(description="Pipelines by name")] = {}
    ring_directory: Annotated[str, Meta(description="Folder of the frame rings, as CameraCapture has it")] = "/dev/shm"  # noqa: S108
    crop_spool_bytes: Annotated[
        int, Meta(ge=0, le=2**40, description="Disk space for crops that wait for S3; the oldest go first")
    ] = 256 * 2**20
    result_spool_bytes: Annotated[
        int, Meta(ge=0, le=2**40, description="Disk space for results that wait for IoT Core; the oldest go first")
    ] = 16 * 2**20
    clock_wait_s: ClockWait = 600.0
