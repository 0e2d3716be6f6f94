"""Configuration of edgeml.EdgeImpulseRunner: the peers' `Parameters`, and what those have no word for."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgeml.edge_impulse.cache import DEFAULT_MAX_BYTES, DEFAULT_MAX_ITEMS
from edgeml.edge_impulse.device import DEFAULT_PREFIX
from edgeml.edge_impulse.parameters import Parameters
from edgeml.fields import ClockWait, TopicOrNone


class Model(msgspec.Struct, frozen=True):
    """Used in this order: `Parameters.ei_local_model_file`, `bundle`, the project of the API key in Studio."""

    bundle: Annotated[
        str, Meta(description="Name of an installed model bundle, or a folder, that holds model.eim; waited for")
    ] = ""
    deployment: Annotated[
        str, Meta(description="Studio's deployment type, as runner-linux-aarch64-jetson-orin; empty: by this machine")
    ] = ""
    variant: Annotated[
        Literal["float32", "int8", "akida"], Meta(description="Variant of the network to download from Studio")
    ] = "float32"
    thresholds: Annotated[
        dict[str, dict[str, float]], Meta(description="Thresholds to set in the model: {block id: {name: value}}")
    ] = {}
    start_timeout_s: Annotated[float, Meta(gt=0, le=600, description="For the model to start and say hello")] = 30.0
    classify_timeout_s: Annotated[
        float, Meta(gt=0, le=600, description="For one inference; a model that takes longer is started anew")
    ] = 10.0
    warm_up_timeout_s: Annotated[
        float, Meta(gt=0, le=7200, description="For the first inference of engines that compile then (TensorRT, GPU)")
    ] = 3600.0


class SourceSettings(msgspec.Struct, frozen=True):
    """The model says which of these it needs: camera, microphone, or the topic of a sensor."""

    camera: Annotated[str, Meta(description="Camera of edgeml.CameraCapture")] = "camera"
    ring_directory: Annotated[str, Meta(description="Folder of the frame rings")] = "/dev/shm"  # noqa: S108
    resize_mode: Annotated[
        Literal["", "none", "fit-shortest", "fit-longest", "squash"],
        Meta(description="How frames are resized; empty: as the model was trained"),
    ] = ""
    max_fps: Annotated[float, Meta(ge=0, le=1000, description="At most so many inferences a second; 0: no limit")] = 0.0
    audio_device: Annotated[str, Meta(description="ALSA device for arecord, as plughw:1,0")] = "default"
    audio_file: Annotated[str, Meta(description="WAV file to listen to instead of a microphone")] = ""
    topic: Annotated[str, Meta(description="Local topic of a sensor's samples")] = ""
    serial_port: Annotated[str, Meta(description="Port of edgeml.SerialScraper whose records are the samples")] = ""
    axes: Annotated[
        list[str], Meta(description="Fields of a sample in the model's order, dotted where nested", max_length=64)
    ] = []
    stride_ms: Annotated[
        float, Meta(ge=0, le=3_600_000, description="From one window of samples to the next; 0: they do not overlap")
    ] = 0.0


class Cache(msgspec.Struct, frozen=True):
    """Bounds of the file cache and, each on its own, of the S3 cache; the oldest go first."""

    max_items: Annotated[int, Meta(ge=1, le=100_000, description="Results kept")] = DEFAULT_MAX_ITEMS
    max_bytes: Annotated[int, Meta(ge=1_000_000, le=1 << 40, description="Bytes kept")] = DEFAULT_MAX_BYTES


class Config(msgspec.Struct, frozen=True, kw_only=True):
    parameters: Annotated[Parameters, Meta(description="As Edge Impulse's own component takes them")] = msgspec.field(
        name="Parameters", default_factory=Parameters
    )
    model: Annotated[Model, Meta(description="Where the model comes from")] = Model()
    input: Annotated[SourceSettings, Meta(description="Where its input comes from")] = SourceSettings()
    cache: Annotated[Cache, Meta(description="How much is kept")] = Cache()
    topic_prefix: Annotated[TopicOrNone, Meta(description="IoT Core topics are <prefix>/<device>/...")] = DEFAULT_PREFIX
    spool_bytes: Annotated[
        int, Meta(ge=65536, le=1 << 40, description="Messages kept on disk while IoT Core cannot be reached")
    ] = 16 << 20
    clock_wait_s: ClockWait = 600.0
