"""Devices, files and streams, through FFmpeg in PyAV."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from camera_capture.camera import VideoCamera
from camera_capture.decoder import Decoder
from camera_capture.errors import UndecodableError
from camera_capture.packets import PacketReader
from camera_capture.source import Source
from camera_capture.stream_clock import StreamClock
from edgeml import redact
from edgeml.errors import SourceError

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from camera_capture.source import Image

MAX_FPS = 240.0  # files with frames at irregular times say 1000 and mean nothing
OPENING, READING = 0.75, 0.9  # of `stall_timeout_s`: what went wrong is told before the supervisor takes it for a hang
PATIENCE, KEYFRAMES_S = 3, 60.0  # times `stall_timeout_s` for a first frame, and seconds between two key frames


class Video(Source):
    """A file plays by its own timestamps, and is opened anew to begin again: not every file can be wound back.

    `made` makes a reader that is not open yet. `packets` gets each packet once it is decoded, and may then do with it
    what it likes, on any thread.
    """

    def __init__(
        self, camera: VideoCamera, made: Callable[[], PacketReader], *, live: bool = True, loop: bool = False
    ) -> None:
        self._camera, self._made, self._loop = camera, made, loop
        self._shown = redact.location(camera.where)
        self.live = live
        self._due: Packet[Any] | None = None  # to `packets`
        self._kept = False  # whether `packets` gets them
        self._frames = 0
        self._reader: PacketReader | None = None
        self._decoder: Decoder | None = None
        self._found: VideoFrame | Packet[VideoStream] | None = None
        self._index, self._start, self._tick_s = 0, 0, 0.0
        self._damaged = ""
        self._clock = StreamClock()
        self._cancelled = False

    def open(self) -> None:
        self._reader = reader = self._made()
        if self._cancelled:
            reader.cancel()
        try:
            reader.open()
        except SourceError as error:
            why = "" if self._cancelled else self._camera.trouble()
            if why:
                raise SourceError(f"{self._shown}: cannot be opened as {self._camera.kind}: {why}") from error
            raise
        reader.packets = self._arrived
        keyframes, limit_s = self._camera.decode == "keyframes", PATIENCE * self._camera.stall_timeout_s
        self._decoder = Decoder(
            reader,
            self._shown,
            keyframes=keyframes,
            hwaccel=self._camera.hwaccel,
            patience_s=max(KEYFRAMES_S, limit_s) if keyframes else limit_s,
            late=self.live,
        )
        self._tell_software()
        stream = reader.stream
        # A file that plays at another rate is another video than its packets make; packets of whole pictures fill any
        # memory, and fewer of the frames say as much.
        self._kept = (self.live or not self._camera.fps) and not stream.codec_context.codec.intra_only
        self._index, self._start, self._tick_s = stream.index, stream.start_time or 0, float(stream.time_base or 0)
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        self.fps = fps if 0.1 <= fps <= MAX_FPS and not keyframes else 0.0

    def grab(self) -> bool:
        if self._decoder is None:
            self.open()
        if self._grabbed():
            return True
        if self.live:
            raise SourceError(f"{self._shown}: the stream ended")
        if self._frames == 0:
            raise SourceError(f"{self._shown}: no frame can be decoded (truncated or not a video)")
        if not self._loop:
            return False
        self.close()
        self.open()
        if not self._grabbed():
            raise SourceError(f"{self._shown}: ended after {self._frames} frames, and then gave no frame any more")
        return True

    def _grabbed(self) -> bool:
        """Whether there is a frame, or one that cannot be decoded."""
        if self._decoder is None:
            return False
        self._damaged = ""
        try:
            self._found = self._decoder.next()
        except UndecodableError as error:
            self._found, self._damaged = None, str(error)
            return True
        finally:
            self._tell_software()
            if not self._decoder.late:
                self._deliver()
        if self._found is None:
            return False
        self._frames += 1
        seconds = self._seconds(self._found.pts)
        if self.live:
            self.captured_ns = round(self._clock.captured(seconds, time.monotonic()) * 1e9)
        else:
            self.position = seconds if seconds is not None and math.isfinite(seconds) else 0.0
        return True

    def _arrived(self, packet: Any) -> None:
        self.sign_of_life = now = time.monotonic()
        self._deliver()
        self._due = packet
        if self.live and packet.stream_index == self._index:
            self._clock.arrived(self._seconds(packet.pts), now)

    def _deliver(self) -> None:
        packet, self._due = self._due, None
        if packet is not None and self.packets is not None and self._kept:
            self.packets(packet)

    def _seconds(self, pts: int | None) -> float | None:
        """A time of the stream, since its start."""
        return None if pts is None else (pts - self._start) * self._tick_s

    def retrieve(self) -> "Image":
        if self._found is None or self._decoder is None:
            raise UndecodableError(self._damaged or f"{self._shown}: nothing was grabbed")
        return self._decoder.image(self._found)

    def _tell_software(self) -> None:
        if self._decoder is not None:
            self.software = self._decoder.software

    def cancel(self) -> None:
        self._cancelled = True
        if self._reader is not None:
            self._reader.cancel()

    def close(self) -> None:
        self._decoder = self._found = self._due = None
        if self._reader is not None:
            self._reader.close()


def reader(
    camera: VideoCamera,
    place: str,
    options: dict[str, str] | None = None,
    container_format: str | None = None,
    made: type[PacketReader] = PacketReader,
) -> PacketReader:
    """A reader of what is at `place`, with the limits of the camera."""
    limit_s = camera.stall_timeout_s
    return made(
        place,
        shown=redact.location(camera.where),
        kind=camera.kind,
        open_s=OPENING * limit_s,
        limit_s=READING * limit_s,
        options=options,
        container_format=container_format,
    )
