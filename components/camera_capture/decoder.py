"""Frames out of packets, by FFmpeg: all or key frames alone, in software or by what the board has for it."""

import time
from collections import deque
from typing import TYPE_CHECKING, cast

from camera_capture.errors import UndecodableError
from camera_capture.packets import MAX_PIXELS, PacketReader, words
from edgeml.errors import SourceError

if TYPE_CHECKING:
    import av
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from camera_capture.source import Image

M2M = "v4l2m2m"  # a decoder of its own, and no hwaccel, as FFmpeg has it


class Decoder:
    """Decodes what an open reader gives. With `keyframes` only those, of which none waits for another one.

    `hwaccel` is a name of FFmpeg; where it does not work, software decodes, and `software` says why. Where packets make
    no frame for `patience_s` that is an error. With `late`, packets that hold a whole picture each are decoded by
    `image`: who passes over frames then does not pay for them.
    """

    def __init__(
        self,
        reader: PacketReader,
        shown: str,
        *,
        keyframes: bool = False,
        hwaccel: str = "",
        patience_s: float,
        late: bool = False,
    ) -> None:
        import av.video.reformatter

        self._reader, self._shown, self._keyframes, self._patience_s = reader, shown, keyframes, patience_s
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._ready: deque[VideoFrame] = deque()
        self._ended = False
        self.software = ""
        self._hardware = False
        self.late = late and not hwaccel and reader.stream.codec_context.codec.intra_only
        self._codec = self._prepared(reader.stream.codec_context)
        if hwaccel:
            self._accelerate(hwaccel)

    def next(self) -> "VideoFrame | Packet[VideoStream] | None":
        """What `image` makes the next picture of; None at the end.

        Raises SourceError, and UndecodableError for a packet without one.
        """
        return self._reader.read() if self.late else self._frame()

    def _frame(self) -> "VideoFrame | None":
        deadline = time.monotonic() + self._patience_s
        while not self._ready:
            if self._ended:
                return None
            packet = self._reader.read()
            self._ended = packet is None
            if packet is None or packet.is_keyframe or not self._keyframes:
                self._ready.extend(self._decoded(packet))
            if not self._ready and time.monotonic() > deadline:
                what = "key frame" if self._keyframes else "frame"
                raise SourceError(f"{self._shown}: packets come, and no {what} for {self._patience_s:g} s")
        return self._ready.popleft()

    def image(self, found: "VideoFrame | Packet[VideoStream]") -> "Image":
        """As BGR, upright. Raises UndecodableError."""
        import av
        import numpy as np

        frame = found if isinstance(found, av.VideoFrame) else self._only(found)
        try:
            made = self._reformatter.reformat(frame, format="bgr24", threads=1)
            plane = made.planes[0]
            rows: Image = np.frombuffer(memoryview(plane), np.uint8).reshape(made.height, plane.line_size)
            image = rows[:, : 3 * made.width].reshape(made.height, made.width, 3)
        except (av.error.FFmpegError, ValueError, MemoryError) as error:
            raise UndecodableError(f"{self._shown}: a frame cannot be decoded: {words(error)}") from error
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def _only(self, packet: "Packet[VideoStream]") -> "VideoFrame":
        frames = self._decoded(packet)
        if not frames:
            raise UndecodableError(f"{self._shown}: a packet without a picture")
        return frames[-1]

    def _decoded(self, packet: "Packet[VideoStream] | None") -> "list[VideoFrame]":
        import av

        try:
            frames = self._codec.decode(packet)
            if self._keyframes and packet is not None:  # a decoder would wait for those that are left out
                frames += self._codec.decode(None)
                self._codec.flush_buffers()
        except (av.error.FFmpegError, ValueError, RuntimeError, MemoryError) as error:
            if self._hardware:
                self._back_to_software(words(error))
                return []
            raise UndecodableError(f"{self._shown}: a frame cannot be decoded: {words(error)}") from error
        self._hardware = self._hardware and not frames  # once it has worked, errors are those of packets
        return frames

    def _prepared(self, codec: "VideoCodecContext") -> "VideoCodecContext":
        codec.options = {**codec.options, "max_pixels": str(MAX_PIXELS)}
        codec.thread_type = "SLICE" if self._keyframes or self.late else "AUTO"
        return codec

    def _accelerate(self, hwaccel: str) -> None:
        import av

        software, self._hardware = self._codec, True
        try:
            made = _hardware(software.codec.name, hwaccel)
            made.extradata = software.extradata
            made.width, made.height = software.width, software.height
            self._codec = self._prepared(made)
            made.open()
        except (av.error.FFmpegError, LookupError, NotImplementedError, ValueError, RuntimeError) as error:
            self._back_to_software(str(error) if isinstance(error, LookupError) else words(error))

    def _back_to_software(self, why: str) -> None:
        self._codec, self._hardware = self._prepared(self._reader.stream.codec_context), False
        self.software = f"software decodes: {why}"


def _hardware(codec: str, hwaccel: str) -> "av.VideoCodecContext":
    """A decoder that is not open yet. Raises LookupError in words, and what FFmpeg raises."""
    import av
    from av.codec.hwaccel import HWAccel, hwdevices_available

    if hwaccel == M2M:
        name = f"{codec}_{M2M}"
        if name not in av.codecs_available:
            raise LookupError(f"FFmpeg here has no {name}")
        return cast("av.VideoCodecContext", av.CodecContext.create(name, "r"))
    there = sorted([*hwdevices_available(), M2M])
    if hwaccel not in there:
        raise LookupError(f"FFmpeg here has no hwaccel {hwaccel}; it has {', '.join(there)}")
    made = cast(
        "av.VideoCodecContext", av.CodecContext.create(codec, "r", HWAccel(hwaccel, allow_software_fallback=False))
    )
    if not made.is_hwaccel:
        raise LookupError(f"FFmpeg here decodes no {codec} by {hwaccel}")
    return made
