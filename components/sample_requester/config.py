"""Configuration of edgeml.SampleRequester."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Config(msgspec.Struct, frozen=True):
    topic: Annotated[str, Meta(min_length=1, description="Local topic of requests")] = "local/inference"
    reply_topic: Annotated[str, Meta(min_length=1, description="Local topic of answers")] = "local/result"
    image_dir: Annotated[
        str, Meta(description="Folder of the pictures; empty is the component's work folder, with the one it ships")
    ] = ""
    fnames: Annotated[
        tuple[str, ...], Meta(description="Pictures asked for in turn; empty is each .jpg, .jpeg, .png and .npy there")
    ] = ()
    interval_s: Annotated[float, Meta(gt=0, le=86400, description="Seconds between two requests")] = 10.0
