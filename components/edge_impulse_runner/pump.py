"""From one window of input to one reported result."""

import functools
import logging
import time

from edge_impulse_runner import images
from edge_impulse_runner.eim import Eim
from edge_impulse_runner.errors import EimRefused
from edge_impulse_runner.protocol import Inference
from edge_impulse_runner.sources import Source
from edgeml.edge_impulse.reporter import Reporter
from edgeml.edge_impulse.results import ModelInfo
from edgeml.errors import SpoolError
from edgeml.health import Health
from edgeml.log import kv
from edgeml.pace import Pacer, Throttle

log = logging.getLogger(__name__)

INPUT_TIMEOUT_S = 0.5  # how long a stop can go unnoticed


class Pump:
    """Takes windows from `source` through `model` to `reporter`, at most `max_fps` a second (0: no limit)."""

    def __init__(self, model: Eim, source: Source, reporter: Reporter, health: Health, max_fps: float) -> None:
        self._model, self._source, self._reporter, self._health = model, source, reporter, health
        self._lost = Throttle()
        self._pacer = Pacer(1 / max_fps if max_fps else 0.0)
        parameters = model.hello.model_parameters
        slices = -(-parameters.input_features_count // parameters.slice_size) if parameters.slice_size else 1
        self._filling = slices - 1  # until it has heard a whole window, a listening model says 0 to everything

    def step(self) -> bool:
        """One window, if one comes in INPUT_TIMEOUT_S; whether the model took it. Raises EimGone, SourceError."""
        time.sleep(min(INPUT_TIMEOUT_S, self._pacer.wait_s()))
        if self._pacer.wait_s():
            return False
        window = self._source.next(INPUT_TIMEOUT_S)
        if window is None:
            return False
        began = time.monotonic()
        self._pacer.took()
        self._health.observe("queue", began - window.arrived)
        try:
            ask = self._model.classify_continuous if window.continuous else self._model.classify
            answer = ask(window.features)
        except EimRefused as error:  # the model could do nothing with this input, and goes on
            self._health.count("inferences_refused")
            self._health.error(error)
            return False
        self._health.observe("classify", time.monotonic() - began)
        self._health.count("inferences")
        if window.continuous and self._filling > 0:
            self._filling -= 1
            return True
        self._report(answer, window.image)
        return True

    def _report(self, answer: Inference, image: images.Image | None) -> None:
        picture = None if image is None else functools.partial(images.jpeg, image)
        try:
            self._reporter.result(answer.result, answer.timing, info=answer.info, image=picture)
        except Exception as error:  # a full disk or an encoder is no fault of the model: only this result is lost
            self._health.count("results_lost")
            self._health.error(error)
            if self._lost.due():
                trace = None if isinstance(error, SpoolError) else error
                log.error("result lost %s", kv(reason=error, times=self._lost.count), exc_info=trace)


def model_info(model: Eim) -> ModelInfo:
    """As `get_model_info` shows it: the hello reply's parameters, and the sensor in a word."""
    project = model.hello.project
    return ModelInfo(
        name=project.name,
        version=f"v{project.deploy_version}",
        parameters={**model.parameters, "sensorType": model.hello.sensor_type},
    )
