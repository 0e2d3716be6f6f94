"""A camera of the machine, by V4L2."""

import logging
import select
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from msgspec import Meta

from camera_capture import v4l2
from camera_capture.camera import VideoCamera
from camera_capture.packets import PacketReader
from camera_capture.video import Video, reader
from edgeml.errors import SourceError
from edgeml.log import kv

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

USUAL = (640, 480)  # the size of cameras that are told none
MAX_WAITING = 32  # frames that drivers keep
SLICE_S = 0.1
_NONBLOCK = "+4"  # AVFMT_FLAG_NONBLOCK, for which fflags has no name
_FFMPEG = {"MJPG": "mjpeg", "H264": "h264", "YUYV": "yuyv422", "UYVY": "uyvy422", "NV12": "nv12", "GREY": "gray"}


class DeviceCamera(VideoCamera, frozen=True, kw_only=True, tag="device"):
    untagged: ClassVar[bool] = True

    location: Annotated[str | int, Meta(description="device: V4L2 index or path, as /dev/v4l/by-id/...")] = "0"
    input_format: Annotated[
        Literal["", "MJPG", "H264", "YUYV", "UYVY", "NV12", "GREY"],
        Meta(description="device: what the camera is to send; by default what is there of YUYV, UYVY, NV12, MJPG"),
    ] = ""

    def open(self) -> Video:
        """Raises SourceError."""
        path = v4l2.device(self.place())
        return Video(self, lambda: self._reader(path))

    def _reader(self, path: Path) -> PacketReader:
        wanted = (self.width or USUAL[0], self.height or USUAL[1])
        taken, size = v4l2.settled(path, self.input_format, *wanted)
        if (self.width or self.height) and size != (self.width or size[0], self.height or size[1]):
            facts = kv(device=path, wanted=f"{wanted[0]}x{wanted[1]}", taken=f"{size[0]}x{size[1]}")
            log.warning("the device has another size, frames are scaled %s: it gives %s", facts, v4l2.offered(path))
        options = {"fflags": _NONBLOCK, "video_size": f"{size[0]}x{size[1]}"}
        if taken:
            options["input_format"] = _FFMPEG[taken]
        if self.fps:
            options["framerate"] = f"{self.fps:g}"
        return reader(self, str(path), options, "video4linux2,v4l2", made=DeviceReader)


class DeviceReader(PacketReader):
    """Waits for frames itself: FFmpeg would do that in the driver, where nothing can interrupt it."""

    nap_s = 0.002

    def open(self) -> "DeviceReader":
        super().open()
        self._descriptor = _descriptor(self.place)
        return self

    def _next(self) -> "Packet[VideoStream] | None":
        """The newest, where each stands for itself."""
        packet = super()._next()
        for _ in range(MAX_WAITING):
            if packet is None or not packet.size:
                time.sleep(self.nap_s)
                break
            if not self.stream.codec_context.codec.intra_only or not self._ready(0):
                break
            if (newer := super()._next()) is None or not newer.size:
                break
            packet = newer
        return _own(packet) if packet is not None and packet.size else packet

    def _wait(self) -> None:
        deadline = time.monotonic() + self.limit_s
        while not self._ready(SLICE_S):
            self.check()
            if time.monotonic() > deadline:
                raise SourceError(f"{self.place}: no frame for {self.limit_s:g} s")

    def _ready(self, limit_s: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(limit_s * 1000))


def _own(packet: "Packet[VideoStream]") -> "Packet[VideoStream]":
    """A copy: FFmpeg's lies in the driver's memory, which is gone, with all that refers to it, once the device is."""
    import av

    made = cast("Packet[VideoStream]", av.Packet(packet.size))
    made.update(packet)  # type: ignore[arg-type]  # any buffer
    made.stream, made.time_base = packet.stream, packet.time_base
    made.pts, made.dts, made.duration, made.is_keyframe = packet.pts, packet.dts, packet.duration, packet.is_keyframe
    return made


def _descriptor(place: str) -> int:
    """FFmpeg's own one of a device that nobody else in this process has open. Raises SourceError."""
    try:
        device = Path(place).stat().st_rdev
    except OSError as error:
        raise SourceError(f"{place}: {(error.strerror or str(error)).lower()}") from error
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            status = descriptor.stat()
        except OSError:  # that of the listing
            continue
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == device:
            return int(descriptor.name)
    raise SourceError(f"{place}: is not open")
