"""Configuration of edgeml.CameraCapture."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgeml.fields import BucketOrNone, ClockWait, KeyPrefix, Name


class Snapshots(msgspec.Struct, frozen=True):
    every_s: Annotated[float, Meta(ge=0, le=86400, description="Seconds between snapshots; 0 takes none by itself")] = 0
    keep: Annotated[int, Meta(ge=1, le=100000, description="Files kept in the folder, the oldest go first")] = 50
    directory: Annotated[str, Meta(description="Folder; default snapshots/<camera> in the work folder")] = ""
    quality: Annotated[int, Meta(ge=10, le=100, description="JPEG quality")] = 90
    s3_bucket: Annotated[BucketOrNone, Meta(description="Bucket for the periodic snapshots; empty uploads nothing")] = (
        ""
    )
    s3_prefix: Annotated[KeyPrefix, Meta(description="Key prefix: <prefix>/<thing>/<camera>/<time>.jpg")] = "snapshots"


class Camera(msgspec.Struct, frozen=True):
    type: Annotated[
        Literal["device", "file", "images", "rtsp", "http", "gstreamer", "test_pattern"],
        Meta(description="Kind of source"),
    ] = "device"
    location: Annotated[
        str | int, Meta(description="V4L2 index or path, file, folder, URL or GStreamer pipeline without its sink")
    ] = "0"
    enabled: Annotated[bool, Meta(description="Off releases the source; the command `start` turns it on")] = True
    loop: Annotated[bool, Meta(description="file, images: begin again at the end instead of stopping there")] = True
    fps: Annotated[float, Meta(ge=0, le=1000, description="Frames per second; 0 keeps the source's own rate")] = 0
    every_s: Annotated[
        float, Meta(ge=0, le=86400, description="http: seconds between two pictures of a snapshot URL; 0 takes 1 s")
    ] = 0
    width: Annotated[int, Meta(ge=0, le=7680, description="Width of frames in pixels; 0 keeps the source's")] = 0
    height: Annotated[int, Meta(ge=0, le=4320, description="Height of frames in pixels; 0 keeps the source's")] = 0
    pixel_format: Annotated[Literal["bgr24", "rgb24", "gray8"], Meta(description="Layout of frames in the ring")] = (
        "bgr24"
    )
    slots: Annotated[int, Meta(ge=2, le=64, description="Frames the ring holds")] = 4
    announce_every: Annotated[
        int,
        Meta(
            ge=0,
            le=100000,
            description="Publish FrameReady for each Nth frame; 0 for none. Readers of the ring need none",
        ),
    ] = 1
    stall_timeout_s: Annotated[
        float, Meta(gt=0, le=600, description="A source that gives nothing for so long is abandoned and opened anew")
    ] = 5.0
    reconnect_min_s: Annotated[
        float, Meta(gt=0, le=600, description="First pause before opening a failed source again")
    ] = 0.5
    reconnect_max_s: Annotated[
        float, Meta(gt=0, le=3600, description="Longest pause; pauses double and are jittered")
    ] = 30.0
    snapshots: Annotated[Snapshots, Meta(description="Pictures on command and by the clock")] = Snapshots()


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
