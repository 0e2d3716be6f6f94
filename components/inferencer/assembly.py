"""From a pipeline's configuration to its parts."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeml.component import Context
from edgeml.errors import ConfigError
from edgeml.ipc import Handler
from edgeml.outbox import Outbox
from edgeml.s3 import Uploader
from inferencer.backends.remote import Remote
from inferencer.config import Pipeline
from inferencer.fallback import WithFallback
from inferencer.parts import Model, Place, Settings, Takers
from inferencer.parts import check as checked
from inferencer.pipeline import PipelineWorker
from inferencer.sources.detections import Offers
from inferencer.writer import Writer


@dataclass
class Running:
    """A pipeline at work, and what it listens to on local topics."""

    worker: PipelineWorker
    topics: list[tuple[str, Handler]] = field(default_factory=list)


class Assembly:
    """Puts pipelines together. `outbox`, and what `uploader` gives to whoever asks for it, are shared by all."""

    def __init__(
        self,
        context: Context,
        rings: Path,
        outbox: Outbox,
        uploader: Callable[[], Uploader],
        takers: Takers | None = None,
        sharing: int = 1,
    ) -> None:
        self._sharing = sharing
        self._context, self._rings, self._outbox, self._uploader = context, rings, outbox, uploader
        self._takers: Takers = {} if takers is None else takers

    def start(self, name: str, pipeline: Pipeline) -> Running:
        """The pipeline, running. Raises ConfigError."""
        with ExitStack() as made:  # what was made is closed again when a later part cannot be
            writers: list[Writer] = []
            place = self._place(name, pipeline, writers, made)
            source = pipeline.source.open(place)
            made.callback(source.close)
            model = self._model(place)
            made.callback(model.close)
            sinks = list(source.sinks())
            for where, settings in pipeline.sink_settings().items():
                if (sink := settings.open(replace(place, prefix=f"{place.prefix}.{where}"))) is not None:
                    sinks.append(sink)
                    made.callback(sink.close)
            sinks.append(Offers(place))
            in_flight = pipeline.backend.in_flight
            worker = PipelineWorker(name, source, model, sinks, self._context, in_flight=in_flight, writers=writers)
            made.pop_all()
        return Running(worker, [topic for part in (source, model, *sinks) for topic in part.topics()])

    def _place(self, name: str, pipeline: Pipeline, writers: list[Writer], made: ExitStack) -> Place:
        def writer() -> Writer:
            if not writers:
                writers.append(Writer(name, self._context))
                made.callback(writers[0].close)
            return writers[0]

        return Place(
            name=name,
            prefix=f"pipelines.{name}",
            pipeline=pipeline,
            context=self._context,
            rings=self._rings,
            outbox=self._outbox,
            uploader=self._uploader,
            writer=writer,
            takers=self._takers,
            sharing=self._sharing,
        )

    @staticmethod
    def _model(place: Place) -> Model:
        model, spare = place.pipeline.backend.open(place), place.pipeline.fallback
        try:
            if spare is not None:
                spare_model = spare.open(replace(place, prefix=f"{place.prefix}.fallback"))
                model = WithFallback(place.name, model, spare_model)
            for settings in (place.pipeline.privacy, place.pipeline.tracking):
                model = model if settings is None else settings.around(model, place)
            return model
        except Exception:
            model.close()
            raise


def check(pipelines: Mapping[str, Pipeline], thing: str) -> None:
    """What a type cannot say about a configuration. Raises ConfigError, before anything is touched."""
    _check_chains(pipelines)
    for name, pipeline in pipelines.items():
        _check_tracking(f"pipelines.{name}", pipeline)
        _check_privacy(f"pipelines.{name}", pipeline)
        parts: dict[str, Settings | None] = {
            "source": pipeline.source,
            "backend": pipeline.backend,
            "fallback": pipeline.fallback,
            **pipeline.sink_settings(),
        }
        for place, settings in parts.items():
            if settings is not None:
                checked(settings, f"pipelines.{name}.{place}", thing)


def _check_chains(pipelines: Mapping[str, Pipeline]) -> None:
    for name, pipeline in pipelines.items():
        path, parent = f"pipelines.{name}.source", pipeline.source.parent
        if parent and parent not in pipelines:
            raise ConfigError(f"{path}.pipeline", f"there is no pipeline {parent}")
        if pipeline.source.needs_tracks and pipelines[parent].tracking is None:
            raise ConfigError(f"{path}.per_track", f'{parent} does not follow objects: add "tracking": {{}} to it')
        way = [name]
        while parent:
            way.append(parent)
            if parent == name:
                raise ConfigError(f"{path}.pipeline", f"pipelines go round in a circle: {' <- '.join(way)}")
            parent = pipelines[parent].source.parent if len(way) <= len(pipelines) and parent in pipelines else ""


def _check_privacy(path: str, pipeline: Pipeline) -> None:
    """What is misspelt would be shown. What labels a bundle has is seen when it is loaded."""
    if pipeline.crops.still and not pipeline.source.seen:
        raise ConfigError(f"{path}.crops.still", "needs a source of frames of a camera")
    if pipeline.privacy is not None and pipeline.crops.still:
        raise ConfigError(f"{path}.crops.still", "the camera's own picture would show what privacy hides: name one")
    if pipeline.privacy is not None and pipeline.events.clip is not None:
        raise ConfigError(f"{path}.events.clip", "a clip would show what privacy hides: name one of them")
    if pipeline.privacy is not None and pipeline.source.parent:
        why = f"{pipeline.source.parent} has shown the picture before: name what is hidden in its privacy"
        raise ConfigError(f"{path}.privacy", why)
    for place, backend in (("backend", pipeline.backend), ("fallback", pipeline.fallback)):
        if pipeline.privacy is None or not isinstance(backend, Remote):
            continue
        if missing := [label for label in pipeline.privacy.labels if label not in backend.labels]:
            there = ", ".join(backend.labels[:20]) or "none"
            raise ConfigError(f"{path}.privacy.labels", f"{missing[0]} is not in {path}.{place}.labels, there {there}")


def _check_tracking(path: str, pipeline: Pipeline) -> None:
    events, iot_core = pipeline.events, pipeline.iot_core
    wants_events = iot_core.enabled and iot_core.when == "events"
    if wants_events and not events.enabled:
        raise ConfigError(f"{path}.iot_core.when", "expected events.enabled, it is false")
    if pipeline.tracking is not None:
        if not pipeline.source.moving:
            raise ConfigError(f"{path}.tracking", "expected a source of frames: a camera or a timer")
        return
    needing: dict[str, Any] = {
        "crops.when": pipeline.crops.when == "best",
        "events.clip": events.clip,
        "events.zones": events.zones,
        "events.lines": events.lines,
        "iot_core.when": wants_events,
    }
    for place, named in needing.items():
        if named:
            raise ConfigError(f"{path}.{place}", 'needs objects that are followed: add "tracking": {}')
