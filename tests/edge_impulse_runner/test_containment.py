"""What goes wrong at one border ends nothing: an unexpected exception at each of them, and the results after it."""

import socket
import threading
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import cv2
import numpy as np
import pytest

from edge_impulse_runner import audio, eim, images, life, process, senses, sources
from edge_impulse_runner.component import EdgeImpulseRunner
from edge_impulse_runner.config import Config, SourceSettings
from edge_impulse_runner.eim import Eim
from edge_impulse_runner.errors import EimGone
from edge_impulse_runner.models import ModelFinder
from edge_impulse_runner.protocol import CAMERA, MICROPHONE, Hello, Inference, ModelParameters
from edgeml.backoff import Backoff
from edgeml.component import Context
from edgeml.edge_impulse import listener, reporter
from edgeml.edge_impulse.cache import FileCache
from edgeml.edge_impulse.parameters import Parameters
from edgeml.edge_impulse.results import Result, Timing
from edgeml.frames import FrameReader, FrameWriter
from edgeml.health import Health
from edgeml.outbox import Outbox
from ipc_support import UNEXPECTED, FakeIpc
from support import eventually

ERRORS: dict[str, Callable[[], Exception]] = {
    **UNEXPECTED,
    "cv2": lambda: cv2.error("x"),
    "wave": lambda: wave.Error("x"),
}
CAMERA_MODEL = ModelParameters(
    input_features_count=12, sensor=CAMERA, image_input_width=4, image_input_height=3, image_channel_count=3
)
SOUND_MODEL = ModelParameters(input_features_count=10, sensor=MICROPHONE, frequency=1000)
SENSOR_MODEL = ModelParameters(input_features_count=2, axis_count=2)


class Model:
    """An Eim without a process."""

    parameters: ClassVar[dict[str, Any]] = {}
    uses_shared_memory = False
    kind = CAMERA_MODEL

    def __init__(self, *given: Any, **options: Any) -> None:
        self.hello = Hello(model_parameters=self.kind)

    def open(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *error: object) -> None: ...

    def classify(self, features: Any) -> Inference:
        return Inference(result=Result(classification={"door": 0.9}), timing=Timing())

    def close(self) -> None: ...


class Running:
    """The component with a camera, a sound or a sensor that never ends."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.core, self.folder, self.patch = FakeIpc(), folder, patch
        ipc: Any = self.core
        self.health = Health("edgeml.EdgeImpulseRunner", "1")
        self.context = Context(ipc=ipc, health=self.health, work=folder, root=folder, thing_name="t")
        self.context.workers.floor_s = self.context.workers.ceiling_s = 0.01
        self.component = EdgeImpulseRunner(self.context)
        self._ended = threading.Event()
        self._feeding = threading.Thread(target=self._feed)

    def start(self, kind: ModelParameters) -> None:
        self.patch.setattr(Model, "kind", kind)
        (self.folder / "m.eim").write_bytes(b"")
        (self.folder / "m.eim").chmod(0o700)
        parameters = Parameters(
            ei_local_model_file=str(self.folder / "m.eim"),
            iotcore_backoff="0",
            publish_inference_base64_image="yes",
            enable_cache_to_file="yes",
            cache_file_directory=str(self.folder / "cache"),
        )
        given = SourceSettings(
            topic="t", ring_directory=str(self.folder), audio_file=str(self.folder / "a.wav"), max_fps=200
        )
        self._feeding.start()
        self.component.start(Config(parameters=parameters, input=given))

    def _feed(self) -> None:
        with FrameWriter("camera", directory=self.folder, width=8, height=6) as writer:
            while not self._ended.wait(0.005):
                writer.write(np.zeros((6, 8, 3), np.uint8))
                if "t" in self.core.handlers:
                    self.core.handlers["t"]("t", b"1,2")

    def deliver(self) -> None:
        before = len(self.core.answers("inference/output"))
        eventually(lambda: len(self.core.answers("inference/output")) > before + 2, 5, "results")

    def codes(self) -> set[str]:
        return {problem.code for problem in self.health.problems.current()}

    def close(self) -> None:
        self.context.stopping.set()
        self.component.stop()
        self._ended.set()
        self._feeding.join()
        assert self.context.events.empty()


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(life, "Backoff", lambda: Backoff(0.01, 0.01))
    monkeypatch.setattr(listener, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(life, "Eim", Model)
    monkeypatch.setattr(life, "MODEL_CHECK_S", 0.01)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 1000, 0, "NONE", ""))
        file.writeframes(bytes(60_000))
    made = Running(tmp_path, monkeypatch)
    yield made
    made.close()


def failing(patch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Callable[[], Exception]]:
    """`owner.name` raises each of the errors once; what is left of them."""
    whole, left = getattr(owner, name), list(ERRORS.values())

    def call(*given: Any, **options: Any) -> Any:
        if left:
            raise left.pop()()
        return whole(*given, **options)

    patch.setattr(owner, name, call)
    return left


BORDERS = [
    (CAMERA_MODEL, FrameReader, "read", "failures", "source_failed"),
    (CAMERA_MODEL, cv2, "resize", "failures", "source_failed"),
    (CAMERA_MODEL, images, "features", "failures", "source_failed"),
    (CAMERA_MODEL, cv2, "imencode", "results_lost", ""),
    (CAMERA_MODEL, FileCache, "put", "cache_errors", ""),
    (CAMERA_MODEL, Model, "open", "workers.failed", "worker_failed"),
    (CAMERA_MODEL, Model, "classify", "workers.failed", "worker_failed"),
    (CAMERA_MODEL, ModelFinder, "locate", "workers.failed", "worker_failed"),
    (CAMERA_MODEL, ModelFinder, "installed", "", ""),
    (SOUND_MODEL, senses, "WavFile", "workers.failed", "worker_failed"),
    (SOUND_MODEL, wave, "open", "failures", "source_failed"),
    (SOUND_MODEL, audio.WavFile, "read", "failures", "source_failed"),
    (SENSOR_MODEL, sources, "measured", "input_rejected", ""),
    (SENSOR_MODEL, FakeIpc, "subscribe_iot", "subscriptions_failed", ""),
    (SENSOR_MODEL, Outbox, "put", "", ""),
    (SENSOR_MODEL, reporter, "encode", "", ""),
]


@pytest.mark.parametrize(("kind", "owner", "name", "counter", "code"), BORDERS, ids=lambda value: str(value)[:9])
def test_after_an_error_at_any_border_results_go_on(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: ModelParameters,
    owner: Any,
    name: str,
    counter: str,
    code: str,
) -> None:
    left = failing(monkeypatch, owner, name)
    running.start(kind)
    eventually(lambda: not left, 5, "all errors")
    running.deliver()
    if counter:
        assert running.health.counter(counter) >= len(ERRORS)
    assert not code or f"code={code}" in caplog.text
    eventually(lambda: running.codes() <= {"worker_failed"}, 5, "the end of the problem")


class Wire(socket.socket):
    """A socket that raises at one of its calls."""

    border = ""
    error: Callable[[], Exception] | None = None

    def __getattribute__(self, name: str) -> Any:
        if name == Wire.border and Wire.error is not None:
            raise Wire.error()
        return super().__getattribute__(name)


@pytest.mark.parametrize("border", ["settimeout", "sendall", "recv_into"])
def test_whatever_the_wire_of_a_model_raises_the_model_is_gone(
    opened: Callable[..., Eim], monkeypatch: pytest.MonkeyPatch, border: str
) -> None:
    monkeypatch.setattr(eim, "socket", SimpleNamespace(**{**vars(socket), "socket": Wire}))
    model = opened(kind="box")
    features = np.zeros(model.hello.model_parameters.input_features_count, np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(process, "STOP_TIMEOUT_S", 0.01)  # of the wait for the last words of one that lives
        patch.setattr(Wire, "border", border)
        for error in ERRORS.values():
            patch.setattr(Wire, "error", error)
            with pytest.raises(EimGone, match="the model is gone"):
                model.classify(features)
