"""From a pipeline's configuration to its parts."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from edgeml.component import Context
from edgeml.errors import ConfigError
from edgeml.http import HttpUrlError
from edgeml.ipc import Handler
from edgeml.onnx_session import runtime
from edgeml.outbox import Outbox
from edgeml.s3 import Uploader
from inferencer import config
from inferencer.camera_source import CameraSamples
from inferencer.http_backend import HttpModel, address
from inferencer.onnx_backend import OnnxModel
from inferencer.pipeline import PipelineWorker
from inferencer.remote import WithFallback
from inferencer.request_source import RequestSamples
from inferencer.sagemaker_backend import SageMakerModel
from inferencer.sample import Model, SampleSource, Sink
from inferencer.sinks import LocalSink, ReplySink, Stored
from inferencer.stream_sources import MqttSamples, StreamSamples
from inferencer.telemetry import TelemetrySink
from inferencer.timer_sources import CallerSamples, Measurements, TimerSamples


@dataclass
class Running:
    """A pipeline at work: what it listens to on local topics, and the ONNX models it uses."""

    worker: PipelineWorker
    subscriptions: dict[str, Handler] = field(default_factory=dict)
    models: list[tuple[str, OnnxModel]] = field(default_factory=list)


class Assembly:
    """Puts pipelines together; `outbox` and `uploader` are shared by all."""

    def __init__(self, context: Context, directory: Path, outbox: Outbox, uploader: Uploader | None) -> None:
        self._context, self._directory = context, directory
        self._outbox, self._uploader = outbox, uploader

    def start(self, name: str, pipeline: config.Pipeline) -> Running:
        """The pipeline, running. Raises ConfigError."""
        prefix = f"pipelines.{name}"
        subscriptions: dict[str, Handler] = {}
        models: list[tuple[str, OnnxModel]] = []
        with ExitStack() as made:  # what was made is closed again when a later part cannot be
            source = self._source(pipeline, prefix, subscriptions)
            made.callback(source.close)
            model = self._model(pipeline.backend, pipeline, prefix, models)
            made.callback(model.close)
            if pipeline.fallback is not None:
                spare = self._model(pipeline.fallback, pipeline, f"{prefix}.fallback", models)
                model = WithFallback(name, model, spare)
            sinks = self._sinks(name, pipeline, subscriptions)
            for sink in sinks:
                made.callback(sink.close)
            in_flight = pipeline.backend.max_in_flight if isinstance(pipeline.backend, config.Remote) else 1
            seen = [sink.seen for sink in sinks if isinstance(sink, TelemetrySink)]
            worker = PipelineWorker(name, source, model, sinks, self._context, in_flight=in_flight, seen=seen)
            made.pop_all()
        return Running(worker, subscriptions, models)

    def _source(self, pipeline: config.Pipeline, prefix: str, subscriptions: dict[str, Handler]) -> SampleSource:
        context, settings = self._context, pipeline.source
        newest = isinstance(pipeline.backend, config.Remote)  # a slow network must not build a backlog
        match settings:
            case config.CameraSource():
                return CameraSamples(settings, self._directory, context.health, prefix)
            case config.RequestSource():
                requests = RequestSamples(settings, context, prefix)
                subscriptions[settings.topic] = requests.received
                return requests
            case config.TopicSource():
                stream = StreamSamples(1 if newest else settings.queue, context, prefix)
                subscriptions[settings.topic] = stream.received
                return stream
            case config.MqttSource():
                return MqttSamples(settings, 1 if newest else settings.queue, context, prefix)
            case config.TimerSource():
                return TimerSamples(settings, self._directory, prefix)
            case config.CallerSource():
                caller = CallerSamples(settings, context, prefix)
                if settings.topic:
                    subscriptions[settings.topic] = caller.received
                return caller

    def _model(
        self,
        settings: config.Backend,
        pipeline: config.Pipeline,
        prefix: str,
        models: list[tuple[str, OnnxModel]],
    ) -> Model:
        match settings:
            case config.OnnxBackend():
                model = OnnxModel(settings, pipeline, self._context, prefix)
                models.append((settings.model, model))
                return model
            case config.SageMakerBackend():
                return SageMakerModel(settings, pipeline, self._context, prefix)
            case config.HttpBackend():
                return HttpModel(settings, pipeline, self._context, prefix)

    def _sinks(self, name: str, pipeline: config.Pipeline, subscriptions: dict[str, Handler]) -> list[Sink]:
        context = self._context
        sinks: list[Sink] = [LocalSink(name, pipeline.local, context)] if pipeline.local.enabled else []
        if isinstance(pipeline.source, config.RequestSource):
            sinks.append(ReplySink())
        if isinstance(pipeline.source, config.CallerSource) and pipeline.source.measured_topic:
            measurements = Measurements(name, context)
            subscriptions[pipeline.source.measured_topic] = measurements.received
            sinks.append(measurements)
        if pipeline.telemetry.enabled:
            sinks.append(TelemetrySink(pipeline.telemetry, context, self._outbox))
        if pipeline.iot_core.enabled or pipeline.crops.bucket:
            sinks.append(Stored(name, pipeline.iot_core, pipeline.crops, context, self._outbox, self._uploader))
        return sinks


def check(pipelines: dict[str, config.Pipeline]) -> None:
    """What a type cannot say about a configuration. Raises ConfigError, before anything is touched."""
    for name, pipeline in pipelines.items():
        for place, backend in (("backend", pipeline.backend), ("fallback", pipeline.fallback)):
            if isinstance(backend, config.OnnxBackend):
                _check_providers(backend.providers, f"pipelines.{name}.{place}.providers")
            if isinstance(backend, config.HttpBackend):
                _check_url(backend.url, f"pipelines.{name}.{place}.url")
        source, path = pipeline.source, f"pipelines.{name}.source"
        if isinstance(source, config.TimerSource) and bool(source.file) == bool(source.camera):
            raise ConfigError(path, "a timer needs either file or camera")
        if isinstance(source, config.CallerSource) and bool(source.file) == bool(source.topic):
            raise ConfigError(path, "a caller needs either file or topic")


def _check_url(url: str, path: str) -> None:
    try:
        address(url)
    except HttpUrlError as error:
        raise ConfigError(path, str(error)) from error


def _check_providers(providers: tuple[str, ...], path: str) -> None:
    present = runtime().get_available_providers()
    for index, provider in enumerate(providers):
        if provider not in present:
            found = f"{provider} is not in this ONNX Runtime, present are {', '.join(present)}"
            raise ConfigError(f"{path}.{index}", found)
