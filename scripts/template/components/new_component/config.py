"""Configuration of edgeml.NewComponent."""

from typing import Annotated

import msgspec
from msgspec import Meta

from edgeml.fields import Topic


class Config(msgspec.Struct, frozen=True):
    topic: Annotated[Topic, Meta(description="Local topic of what it says")] = "local/new_component"
    interval_s: Annotated[float, Meta(gt=0, le=86400, description="Seconds between two messages")] = 10.0
