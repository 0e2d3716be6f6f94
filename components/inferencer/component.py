"""Pipelines by configuration: started, stopped and changed each on its own."""

import logging
from pathlib import Path

from edgeml import messages
from edgeml.component import Component, Context
from edgeml.errors import ConfigError
from edgeml.s3 import Uploader
from inferencer import __version__
from inferencer.camera_source import CameraSamples
from inferencer.config import Config, OnnxBackend, Pipeline
from inferencer.onnx_backend import OnnxModel
from inferencer.pipeline import PipelineWorker
from inferencer.sinks import IotRelay, LocalSink, Sink, Stored

log = logging.getLogger(__name__)


class Inferencer(Component[Config]):
    """Runs inference pipelines: source -> model -> sinks."""

    name = "edgeml.Inferencer"
    version = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._config = Config()
        self._running: dict[str, _Running] = {}
        self._models: dict[str, list[OnnxModel]] = {}
        self._relay: IotRelay | None = None
        self._uploader: Uploader | None = None

    def start(self, config: Config) -> None:
        for name, pipeline in config.pipelines.items():
            _check_providers(name, pipeline.backend)
        if self._relay is None:
            self._relay = IotRelay(self.context, config.result_spool_bytes)
        if self._uploader is None and any(pipeline.crops.bucket for pipeline in config.pipelines.values()):
            self._uploader = Uploader(self.context, max_bytes=config.crop_spool_bytes)
        self._config = config
        for name, pipeline in config.pipelines.items():
            if name not in self._running:
                self._running[name] = self._begin(name, pipeline)
        self.context.health.note("pipelines", "" if config.pipelines else "none configured")

    def reconfigure(self, config: Config) -> None:
        for name, pipeline in config.pipelines.items():
            _check_providers(name, pipeline.backend)
        moved = config.ring_directory != self._config.ring_directory
        for name in list(self._running):
            if moved or config.pipelines.get(name) != self._config.pipelines.get(name):
                self._end(name)
        self.start(config)

    def stop(self) -> None:
        for name in list(self._running):
            self._end(name)
        if self._uploader is not None:
            self._uploader.close()
        if self._relay is not None:
            self._relay.close()

    def _begin(self, name: str, pipeline: Pipeline) -> "_Running":
        context, prefix = self.context, f"pipelines.{name}"
        source = CameraSamples(pipeline.source, Path(self._config.ring_directory), context.health, prefix)
        model = OnnxModel(
            pipeline.backend, context, prefix, score_threshold=pipeline.score_threshold, top_k=pipeline.top_k
        )
        self._listen(pipeline.backend.model, model)
        sinks: list[Sink] = []
        if pipeline.local.enabled:
            sinks.append(LocalSink(name, pipeline.local, context))
        stored = None
        if self._relay is not None and (pipeline.iot_core.enabled or pipeline.crops.bucket):
            stored = Stored(name, pipeline.iot_core, pipeline.crops, context, self._relay, self._uploader)
            sinks.append(stored)
        worker = PipelineWorker(name, source, model, sinks, context)
        return _Running(worker, stored, pipeline.backend.model, model)

    def _end(self, name: str) -> None:
        running = self._running.pop(name)
        self._models[running.model_name].remove(running.model)
        running.worker.stop()
        if running.stored is not None:
            running.stored.close()
        self.context.health.forget(f"pipelines.{name}.")

    def _listen(self, model_name: str, model: OnnxModel) -> None:
        """Hand activations of a model to everyone here who uses it. One subscription per model, for good."""
        if model_name in self._models:
            self._models[model_name].append(model)
            return
        users = self._models[model_name] = [model]

        def activate(topic: str, payload: bytes) -> None:
            for user in list(users):
                user.activate(topic, payload)

        self.context.ipc.subscribe(messages.model_activate(model_name), activate)


class _Running:
    def __init__(self, worker: PipelineWorker, stored: Stored | None, model_name: str, model: OnnxModel) -> None:
        self.worker, self.stored, self.model_name, self.model = worker, stored, model_name, model


def _check_providers(name: str, backend: OnnxBackend) -> None:
    import onnxruntime as ort

    present = ort.get_available_providers()
    for index, provider in enumerate(backend.providers):
        if provider not in present:
            path = f"pipelines.{name}.backend.providers.{index}"
            raise ConfigError(path, f"{provider} is not in this ONNX Runtime, present are {', '.join(present)}")
