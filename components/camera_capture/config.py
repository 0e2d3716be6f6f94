"""Configuration of edgeml.CameraCapture. What a kind of camera is told stands in its module."""

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from camera_capture import camera, kinds
from edgeml.fields import ClockWait, Name
from edgeml.kinds import union

if TYPE_CHECKING:
    Camera = camera.Camera
else:
    Camera = union("camera_capture.kinds", kinds.KINDS)


class Config(msgspec.Struct, frozen=True):
    cameras: Annotated[dict[Name, Camera], Meta(description="Cameras by name")] = {}
    ring_directory: Annotated[str, Meta(description="Folder of the frame rings, on a memory file system")] = "/dev/shm"  # noqa: S108
    spool_bytes: Annotated[
        int, Meta(ge=0, le=2**40, description="Disk space for snapshots that wait for S3; the oldest go first")
    ] = 64 * 2**20
    clock_wait_s: ClockWait = 600.0
    share_with_group: Annotated[
        bool,
        Meta(description="Let other users of the component's group read the frames"),
    ] = False
