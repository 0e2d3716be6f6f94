"""What pipelines are put together from. A part is made by its settings, as they are configured: `open`.

Modules of `sources`, `backends` and `sinks` hold one kind each: settings, the part, and what makes it. They are
imported with the configuration, so each imports a heavy library where it uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Protocol

import msgspec

from edgeml.errors import ConfigError
from edgeml.messages import InferenceResult
from inferencer.sample import Outcome, Sample

if TYPE_CHECKING:
    from pathlib import Path

    from edgeml.component import Context
    from edgeml.ipc import Handler
    from edgeml.outbox import Outbox
    from edgeml.s3 import Uploader
    from inferencer.writer import Writer

    Topics = Sequence[tuple[str, Handler]]


Takers = dict[str, list[Callable[[Sample, Outcome], None]]]  # who is offered a pipeline's answers, by its name


class Pipeline(Protocol):
    """What a pipeline's configuration tells its parts; config.Pipeline is one."""

    @property
    def source(self) -> SourceSettings: ...

    @property
    def backend(self) -> BackendSettings: ...

    @property
    def fallback(self) -> BackendSettings | None: ...

    @property
    def score_threshold(self) -> float: ...

    @property
    def top_k(self) -> int: ...

    @property
    def verdict_every_s(self) -> float: ...

    @property
    def privacy(self) -> DetectionSettings | None: ...

    @property
    def tracking(self) -> DetectionSettings | None: ...


def lowest(pipeline: Pipeline, threshold: float) -> float:
    """The score from which on a model is to tell of detections: `threshold`, or lower where somebody needs them."""
    return min([threshold, *(each.lowest for each in (pipeline.privacy, pipeline.tracking) if each is not None)])


@dataclass(frozen=True)
class Place:
    """Where a part is to work: its pipeline, and what it shares with others."""

    name: str  # of the pipeline
    prefix: str  # of what it says in the health
    pipeline: Pipeline
    context: Context
    rings: Path  # folder of the frame rings
    outbox: Outbox
    uploader: Callable[[], Uploader]
    writer: Callable[[], Writer]  # the pipeline's own
    takers: Takers = field(default_factory=dict)
    sharing: int = 1  # how many pipelines run models in this process
    listeners: list[Callable[[bytes], None]] = field(default_factory=list)  # get its events' JSON; they may use a disk


class Part(Protocol):
    """What pipelines are made of."""

    def topics(self) -> Topics:
        """The local topics it listens to, each with who takes the messages."""
        return ()

    def close(self) -> None:
        return


class Sink(Part, Protocol):
    """Takes results on the pipeline's thread; must not wait for the network."""

    def seen(self, sample: Sample) -> None:
        """Told of every sample, before the model is."""
        return

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None: ...


class SampleSource(Part, Protocol):
    """Gives a pipeline its samples, to one thread at a time."""

    def next(self, timeout: float) -> Sample | None:
        """The next sample, or None if none came within `timeout` seconds. Raises EdgemlError."""

    def more(self, limit: int) -> list[Sample]:
        """Up to `limit` further ones that wait already."""
        return []

    def sinks(self) -> Sequence[Sink]:
        """What takes the results for it: who asked wants an answer."""
        return ()


class Model(Part, Protocol):
    """Answers samples. `poll` is called between two samples and may put another version in place."""

    def poll(self) -> bool:
        """Whether a model is ready to answer."""

    def infer(self, sample: Sample) -> Outcome | None:
        """The answer, or None if this sample has none of its own. Raises BackendError."""

    @property
    def together(self) -> int:
        """How many samples that wait it answers sooner at once than one after the other."""
        return 1

    def infer_all(self, samples: Sequence[Sample]) -> list[Outcome | None]:
        """The same for several, together where the model can. Raises BackendError if it fails at one of them."""
        return [self.infer(sample) for sample in samples]


class Around(Model, Protocol):
    """A model whose answers say more, or less, than those of `_model`, of which they are made."""

    _model: Model

    def topics(self) -> Topics:
        return self._model.topics()

    def poll(self) -> bool:
        return self._model.poll()

    def close(self) -> None:
        self._model.close()


class Settings(msgspec.Struct, frozen=True):
    # The configuration of a part. (A docstring would become the schema's description.)

    needs: ClassVar[tuple[str, ...]] = ()  # packages that it imports, and that not every device has

    def check(self, path: str, thing: str) -> None:
        """Raises ConfigError for what a type cannot say. `path` is where this is configured."""


class SourceSettings(Settings, frozen=True):
    moving: ClassVar[bool] = False  # its samples are pictures of one place after another moment

    batches: ClassVar[bool] = False  # several of its samples may wait, and be answered together

    @property
    def seen(self) -> str:
        """The camera whose frames it gives, if it does."""
        return ""

    @property
    def parent(self) -> str:
        """The pipeline whose detections it gives, if it does."""
        return ""

    @property
    def needs_tracks(self) -> bool:
        """Must that pipeline follow objects?"""
        return False

    def open(self, place: Place) -> SampleSource:
        raise NotImplementedError


class BackendSettings(Settings, frozen=True):
    remote: ClassVar[bool] = False  # a slow network must not build a backlog: only the newest sample is asked

    @property
    def in_flight(self) -> int:
        """How many samples it answers at the same time."""
        return 1

    def open(self, place: Place) -> Model:
        raise NotImplementedError


class DetectionSettings(msgspec.Struct, frozen=True):
    # What a pipeline does with its detections: it hides them, or follows objects.

    @property
    def lowest(self) -> float:
        """The score from which on it wants to see detections."""
        raise NotImplementedError

    @property
    def named(self) -> tuple[str, ...]:
        """Labels that the model must have."""
        return ()

    def around(self, model: Model, place: Place) -> Model:
        """`model`, whose answers say more."""
        raise NotImplementedError


class SinkSettings(Settings, frozen=True):
    def open(self, place: Place) -> Sink | None:
        """The sink, or None where it is turned off."""
        raise NotImplementedError


def check(settings: Settings, path: str, thing: str) -> None:
    """Raises ConfigError for settings that can never work here."""
    for library in settings.needs:
        if find_spec(library) is None:
            raise ConfigError(path, f"needs the Python package {library}, which is not installed on this device")
    settings.check(path, thing)
