"""Numbers on a local topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from inferencer.parts import Place, SampleSource, SourceSettings
from inferencer.sources.stream import StreamSamples

if TYPE_CHECKING:
    from edgeml.component import Context
    from inferencer.parts import Topics


class TopicSource(SourceSettings, frozen=True, tag="topic", tag_field="type"):
    topic: Annotated[str, Meta(min_length=1, description="Local topic of numbers: JSON list, JSON object, or CSV")]
    queue: Annotated[int, Meta(ge=1, le=100_000, description="Messages that wait; further ones are dropped")] = 1000

    def open(self, place: Place) -> SampleSource:
        return TopicSamples(self, 1 if place.pipeline.backend.remote else self.queue, place.context, place.prefix)


class TopicSamples(StreamSamples):
    """Messages of a local topic."""

    def __init__(self, settings: TopicSource, limit: int, context: Context, prefix: str) -> None:
        super().__init__(limit, context, prefix)
        self._topic = settings.topic

    def topics(self) -> Topics:
        return [(self._topic, self.received)]
