"""The messages of an .eim model: JSON objects over a Unix stream socket, each reply ended by a NUL byte.

Source: edgeimpulse/example-standalone-inferencing-linux, source/eim.cpp. Old models leave fields out, so that every
field that later versions added has the default that stands for "older".
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edgeml.edge_impulse.results import Result, Timing

ResizeMode = Literal["none", "fit-shortest", "fit-longest", "squash"]

MICROPHONE, CAMERA = 1, 3
SENSORS = {
    -1: "unknown",
    MICROPHONE: "microphone",
    2: "accelerometer",
    CAMERA: "camera",
    4: "positional",
    5: "environmental",
    6: "fusion",
}
TENSORRT = 6
MAX_FEATURES = 16 << 20  # more than any camera's picture; a damaged model must not have us take all memory

Side = Annotated[int, Meta(ge=0, le=8192)]


class Project(msgspec.Struct, frozen=True, kw_only=True):
    id: int = 0
    owner: str = ""
    name: str = ""
    deploy_version: int = 0
    impulse_id: int = 1
    impulse_name: str = ""


class ModelParameters(msgspec.Struct, frozen=True, kw_only=True):
    """`frequency` in Hz, `interval_ms` between samples; `input_features_count` numbers make one window."""

    input_features_count: Annotated[int, Meta(ge=1, le=MAX_FEATURES)]
    sensor: int = -1
    frequency: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    interval_ms: float = 0.0
    axis_count: Annotated[int, Meta(le=MAX_FEATURES)] = 1
    image_input_width: Side = 0
    image_input_height: Side = 0
    image_channel_count: int = 0
    image_resize_mode: ResizeMode = "squash"
    label_count: int = 0
    labels: list[str] = []
    model_type: str = "classification"
    slice_size: Annotated[int, Meta(ge=0, le=MAX_FEATURES)] = 0
    use_continuous_mode: bool = False
    thresholds: list[dict[str, Any]] = []
    inferencing_engine: int = 0


class SharedMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A block of float32 that the model made with shm_open."""

    name: str
    elements: int
    size_bytes: int
    type: str = "float32"


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    engine_type: int = 0
    properties: list[str] = []


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    model_parameters: ModelParameters
    project: Project = Project()
    features_shm: SharedMemory | None = None
    features_shm_error: str = ""
    freeform_output_shm: list[SharedMemory] = []
    inferencing_engine: Engine = Engine()

    @property
    def needs_warm_up(self) -> bool:
        """Engines that build their kernels at the first inference, which can take many minutes."""
        return self.model_parameters.inferencing_engine == TENSORRT or "gpu_delegates" in (
            self.inferencing_engine.properties
        )

    @property
    def sensor_type(self) -> str:
        return SENSORS.get(self.model_parameters.sensor, "unknown")

    @property
    def is_regression(self) -> bool:
        parameters = self.model_parameters
        return parameters.model_type == "classification" and parameters.label_count == 1


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What any message is answered with. A C++ exception in the model leaves `id` and `success` out."""

    id: int = 0
    success: bool = False
    error: str = ""
    result: msgspec.Raw = msgspec.Raw(b"{}")
    timing: Timing = Timing()
    info: str | None = None


class FreeformResult(msgspec.Struct, frozen=True):
    """`freeform` is the word `shm` when the outputs lie in shared memory."""

    freeform: list[list[float]] | str


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """One answered classify message."""

    result: Result
    timing: Timing
    info: str | None = None
