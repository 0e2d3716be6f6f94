"""Configuration of edgeml.Monitor."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from monitor.vitals.limits import Limits


class Config(msgspec.Struct, frozen=True):
    port: Annotated[
        int, Meta(ge=0, le=65535, description="Port of the page on 127.0.0.1; 0 takes a free one, which the log tells")
    ] = 8484
    auth: Annotated[
        Literal["password", "off"],
        Meta(description="Ask for the password in the work folder's file `password`; off lets every local user look"),
    ] = "password"
    ring_directory: Annotated[str, Meta(description="Folder of the frame rings, as CameraCapture has it")] = "/dev/shm"  # noqa: S108
    fps: Annotated[
        float, Meta(gt=0, le=60, description="Pictures a second of a camera at most, while somebody watches")
    ] = 10.0
    max_width: Annotated[int, Meta(ge=160, le=3840, description="Pixels across a picture at most")] = 960
    vitals: Annotated[Limits, Meta(description="How the device itself does, and from when on something is wrong")] = (
        Limits()
    )
