"""What every camera is told. What one kind alone is told stands in its module of `kinds`."""

from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from camera_capture import polygons
from camera_capture.http_address import split
from camera_capture.motion import MotionSettings
from camera_capture.packets import PacketReader
from camera_capture.passwords import Password
from camera_capture.polygons import Polygon
from camera_capture.source import Source
from edgeml.errors import ConfigError, SourceError
from edgeml.fields import BucketOrNone, KeyPrefix


class Snapshots(msgspec.Struct, frozen=True):
    every_s: Annotated[float, Meta(ge=0, le=86400, description="Seconds between snapshots; 0 takes none by itself")] = 0
    keep: Annotated[int, Meta(ge=1, le=100000, description="Files kept in the folder, the oldest go first")] = 50
    directory: Annotated[str, Meta(description="Folder; default snapshots/<camera> in the work folder")] = ""
    quality: Annotated[int, Meta(ge=10, le=100, description="JPEG quality")] = 90
    s3_bucket: Annotated[BucketOrNone, Meta(description="Bucket for the periodic snapshots; empty uploads nothing")] = (
        ""
    )
    s3_prefix: Annotated[KeyPrefix, Meta(description="Key prefix: <prefix>/<thing>/<camera>/<time>.jpg")] = "snapshots"


class Stills(msgspec.Struct, frozen=True):
    s3_bucket: Annotated[BucketOrNone, Meta(min_length=3, description="Bucket for what `still` asks for")]
    s3_prefix: Annotated[KeyPrefix, Meta(min_length=1, description="Keys are taken below <prefix>/<thing>/ only")] = (
        "faces"
    )
    quality: Annotated[int, Meta(ge=10, le=100, description="JPEG quality")] = 90


class Clips(msgspec.Struct, frozen=True):
    s3_bucket: Annotated[BucketOrNone, Meta(description="Bucket for clips; empty uploads none")] = ""
    s3_prefix: Annotated[KeyPrefix, Meta(min_length=1, description="Keys are taken below <prefix>/<thing>/ only")] = (
        "clips"
    )
    keep_bytes: Annotated[
        int,
        Meta(ge=0, le=2**44, description="Disk space for clips that are kept here, the oldest go first; 0 for none"),
    ] = 0
    keep_days: Annotated[float, Meta(gt=0, le=3650, description="Days for which they are kept")] = 30.0
    directory: Annotated[str, Meta(description="Their folder; default clips/<camera> in the work folder")] = ""
    fps: Annotated[float, Meta(ge=0.1, le=30, description="Frames per second of clips that are encoded")] = 5.0
    max_side: Annotated[int, Meta(ge=64, le=3840, description="Longer side of their pictures, at most")] = 1280
    before_s: Annotated[float, Meta(ge=0, le=60, description="Seconds that are kept for the time before")] = 10.0
    max_bytes: Annotated[
        int, Meta(ge=2**21, le=2**28, description="Memory for what is kept, and the longest file of a clip")
    ] = 32 * 2**20
    quality: Annotated[int, Meta(ge=10, le=100, description="JPEG quality of kept frames")] = 80


class Camera(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    enabled: Annotated[bool, Meta(description="Off releases the source; the command `start` turns it on")] = True
    fps: Annotated[float, Meta(ge=0, le=1000, description="Frames per second; 0 keeps the source's own rate")] = 0
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
    stills: Annotated[
        Stills | None, Meta(description="Lets others ask for parts of frames by the command `still`; null refuses")
    ] = None
    clips: Annotated[
        Clips | None, Meta(description="Keeps the last seconds in memory, for the command `clip`; null refuses")
    ] = None
    privacy_masks: Annotated[
        tuple[Polygon, ...],
        Meta(
            max_length=polygons.MAX_POLYGONS,
            description="What nobody is to see: polygons of corners [x, y] in fractions of the picture, always black",
        ),
    ] = ()
    motion: Annotated[
        MotionSettings | None, Meta(description="Looks for motion; an empty object takes the defaults")
    ] = None

    @property
    def kind(self) -> str:
        return str(self.__struct_config__.tag)

    @property
    def uploads(self) -> bool:
        """Whether anything of it goes to S3."""
        return bool(self.snapshots.s3_bucket or (self.clips and self.clips.s3_bucket)) or self.stills is not None

    @property
    def where(self) -> str:
        """Where the source is, with its secrets; empty for a kind that is nowhere."""
        return ""

    def check(self, path: str) -> None:
        """Raises ConfigError for what a type cannot say; asked of cameras that are to run."""
        polygons.check(f"{path}.privacy_masks", self.privacy_masks)
        if self.clips is not None and not (self.clips.s3_bucket or self.clips.keep_bytes):
            raise ConfigError(f"{path}.clips", "expected s3_bucket or keep_bytes, else clips would be nowhere")
        if self.motion is not None:
            polygons.check(f"{path}.motion.mask", self.motion.mask)

    def trouble(self) -> str:
        """Why it cannot be opened, where that can be found out; asked when it could not be. Raises nothing."""
        return ""

    def unlocked(self, password: Callable[[Password], str]) -> "Camera":
        """Itself with what `password` gives in its place. Raises SourceError."""
        return self

    def open(self) -> Source:
        """The source. Raises SourceError saying what cannot be opened and why.

        Those that connect to something do that in `Source.open`, or with the first `grab`.
        """
        raise NotImplementedError


class LocatedCamera(Camera, frozen=True, kw_only=True):
    location: str | int = "0"  # each kind says what it means by it

    @property
    def where(self) -> str:
        return str(self.location)

    def place(self) -> str:
        """`where` as text that foreign code can be given. Raises SourceError."""
        where = self.where
        try:
            where.encode()
        except UnicodeEncodeError as error:
            raise SourceError("location: expected text that UTF-8 can hold") from error
        if "\0" in where:
            raise SourceError("location: expected text without NUL")
        return where


class Streams(msgspec.Struct, frozen=True):
    detect: Annotated[str, Meta(min_length=1, max_length=2048, description="URL of the small stream, for the ring")]
    record: Annotated[
        str, Meta(min_length=1, max_length=2048, description="URL of the large one, for clips, stills and snapshots")
    ]


class VideoCamera(LocatedCamera, frozen=True, kw_only=True):
    decode: Annotated[
        Literal["all", "keyframes"], Meta(description="Videos: which frames; key frames alone cost far less CPU")
    ] = "all"
    hwaccel: Annotated[
        str,
        Meta(
            pattern="^[a-z0-9_]{0,32}$",
            description="Videos: FFmpeg's name of what decodes instead of the CPU, as cuda or v4l2m2m",
        ),
    ] = ""


class NetworkCamera(VideoCamera, frozen=True, kw_only=True):
    streams: Annotated[
        Streams | None, Meta(description="rtsp, http: two streams of the camera, in place of `location`")
    ] = None
    password: Annotated[
        Password | None, Meta(description="rtsp, http: where the password of the user in `location` is kept")
    ] = None

    def check(self, path: str) -> None:
        super().check(path)
        places = {"location": self.where}
        if self.streams is not None:
            if str(self.location) != "0":
                raise ConfigError(f"{path}.streams", "expected either location or streams, found both")
            places = {"streams.detect": self.streams.detect, "streams.record": self.streams.record}
        for name, place in places.items() if self.password is not None else ():
            _, user, _ = split(place)
            if not user or ":" in user:
                raise ConfigError(f"{path}.{name}", "expected rtsp://user@host, without a password beside `password`")

    @property
    def where(self) -> str:
        return super().where if self.streams is None else self.streams.detect

    def large(self) -> "NetworkCamera | None":
        """The camera of its large stream, if it has one."""
        return msgspec.structs.replace(self, location=self.streams.record, streams=None) if self.streams else None

    def reader(self) -> PacketReader:
        """A reader of its packets, that is not open yet. Raises SourceError for a place that cannot be."""
        raise NotImplementedError

    def unlocked(self, password: Callable[[Password], str]) -> "NetworkCamera":
        if self.password is None:
            return self
        scheme, user, place = split(self.where)
        location = f"{scheme}://{user}:{quote(password(self.password), safe='')}@{place}"
        return msgspec.structs.replace(self, location=location, streams=None)
