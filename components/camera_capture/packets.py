"""Packets of a stream, file or device, through FFmpeg in PyAV: each read has a limit, and can be cancelled."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from camera_capture.errors import UndecodableError
from edgeml.errors import EdgemlError, SourceError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

MAX_PIXELS = 50_000_000  # of a frame: beyond, it is not decoded
_HASTE = 1e9


class PacketReader:
    """Reads the packets of the first video stream at `place`, a URL or path that FFmpeg understands.

    To read without decoding, call `read` until it gives None. `packets` is called on the reading thread with each
    packet that `read` is about to return, before anybody decodes it; what it raises ends the reading. A packet's
    `stream` is the template for remuxing (`output.add_stream_from_template(packet.stream)`) as long as the reader is
    open: after `close` only a packet's bytes, times and flags may be used.

    `limit_s` bounds every `read`, `open_s` the two parts of opening, each. `shown` names the place in errors, without
    its secrets, and `kind` what it should be. `options` are those of FFmpeg's demuxer, `container_format` is its name
    where it is not to be guessed.
    """

    nap_s = 0.0  # in FFmpeg's interrupt callback, where FFmpeg would ask it without a pause

    def __init__(
        self,
        place: str,
        *,
        shown: str,
        limit_s: float,
        open_s: float | None = None,
        kind: str = "video",
        options: Mapping[str, str] | None = None,
        container_format: str | None = None,
        packets: "Callable[[Packet[Any]], None] | None" = None,
    ) -> None:
        self.packets = packets
        self.place, self._shown, self._kind = place, shown, kind
        self.limit_s, self._open_s = limit_s, open_s if open_s is not None else limit_s
        self._options = {"max_pixels": str(MAX_PIXELS), **(options or {})}  # FFmpeg decodes a little as it opens
        self._format = container_format
        self._container: InputContainer | None = None
        self._stream: VideoStream | None = None
        self._coming: Iterator[Packet[VideoStream]] | None = None
        self._index = 0
        self._reads = _Foreign(self, f"{shown}: the stream broke off", limit_s)
        self.cancelled = False

    @property
    def stream(self) -> "VideoStream":
        """Raises SourceError where it is not open."""
        if self._stream is None:
            raise SourceError(f"{self._shown}: is not open")
        return self._stream

    def open(self) -> "PacketReader":
        """Raises SourceError."""
        import av

        _listen_to_us()
        with _Foreign(self, f"{self._shown}: cannot be opened as {self._kind}", self._open_s, parts=2):
            limits = (self._open_s, self.limit_s)
            self._container = av.open(self.place, "r", self._format, dict(self._options), timeout=limits)
        try:
            self._stream = self._found(self._container)
            self._index = self._stream.index
        except SourceError:
            self.close()
            raise
        return self

    def _found(self, container: "InputContainer") -> "VideoStream":
        if not container.streams.video:
            raise SourceError(f"{self._shown}: it has no video")
        stream = container.streams.video[0]
        if stream.codec_context is None:  # types say never, PyAV does not
            raise SourceError(f"{self._shown}: its video is of a kind that FFmpeg does not know")
        width, height = stream.width or 0, stream.height or 0
        if width * height > MAX_PIXELS:
            raise SourceError(f"{self._shown}: frames of {width} x {height}, expected at most {MAX_PIXELS} pixels")
        return stream

    def read(self) -> "Packet[VideoStream] | None":
        """The next packet with something in it; None at the end.

        Raises SourceError, and UndecodableError for one packet that is damaged.
        """
        deadline = time.monotonic() + self.limit_s
        while True:
            packet = self._next()
            if packet is None:
                return None
            if packet.size:  # an empty one would tell a decoder that the stream is over
                if self.packets is not None:
                    self.packets(packet)
                if packet.stream_index == self._index:
                    return packet
            if time.monotonic() > deadline:
                raise SourceError(f"{self._shown}: no video for {self.limit_s:g} s")

    def _next(self) -> "Packet[VideoStream] | None":
        if self._container is None:
            raise SourceError(f"{self._shown}: is not open")
        import av

        self._wait()
        with self._reads:
            # All streams: PyAV would pass over others for ever, and ask no clock meanwhile.
            self._coming = self._coming or cast("Iterator[Packet[VideoStream]]", self._container.demux())
            try:
                return next(self._coming, None)
            except av.error.BlockingIOError:
                self._coming = None
                return cast("Packet[VideoStream]", av.Packet())
            except av.error.InvalidDataError as error:
                self._coming = None
                raise UndecodableError(f"{self._shown}: a packet is damaged") from error

    def _wait(self) -> None:
        """Wait for data, where FFmpeg cannot be interrupted while it does. Raises SourceError."""

    def cancel(self) -> None:
        """Make `open` or `read` of another thread raise SourceError soon."""
        self.cancelled = True

    def close(self) -> None:
        """Give the connection back; to be called by the thread that reads."""
        self._coming = self._stream = None
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def check(self) -> None:
        """Raises SourceError once it is cancelled."""
        if self.cancelled:
            raise SourceError(f"{self._shown}: reading was cancelled")


def words(error: BaseException) -> str:
    """An error of FFmpeg in a few words, which never hold what it was given."""
    text = getattr(error, "strerror", None) or type(error).__name__
    return str(text).lower()[:100]


class _Reading(threading.local):
    """Whose call of FFmpeg this thread is in, and until when."""

    reader: PacketReader | None = None
    until = 0.0


class _Foreign:
    """Around calls of FFmpeg, one after another: what they raise is a SourceError, without URLs.

    Each lasts `limit_s` in each of its `parts`, at most: PyAV begins to count anew with every packet that it passes
    over, as those of streams that a container had not when it was opened.
    """

    def __init__(self, reader: PacketReader, what: str, limit_s: float, parts: int = 1) -> None:
        self._reader, self._what, self._limit_s, self._parts = reader, what, limit_s, parts
        self._began = 0.0

    def __enter__(self) -> None:
        self._reader.check()
        self._began = time.monotonic()
        _reading.reader, _reading.until = self._reader, self._began + self._parts * self._limit_s

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *rest: object) -> None:
        _reading.reader = None
        if error is None or isinstance(error, EdgemlError):
            return
        import av

        if isinstance(error, (av.error.FFmpegError, OSError, ValueError, RuntimeError, MemoryError)):
            self._reader.check()
            late = time.monotonic() - self._began >= self._limit_s or isinstance(error, av.error.ExitError)
            # What FFmpeg makes of an interrupt differs, and it may first give what it still has.
            why = f"nothing whole within {self._limit_s:g} s" if late else words(error)
            raise SourceError(f"{self._what}: {why}") from error


class _Clock:
    """PyAV's way out of a read that lasts too long is FFmpeg's interrupt callback, which asks for the time. To it, a
    reader that is cancelled, or late, lives so fast that every limit is over; else the time is `time.monotonic`.
    """

    @staticmethod
    def monotonic() -> float:
        reader = _reading.reader
        if reader is not None and reader.nap_s:
            time.sleep(reader.nap_s)
        now = time.monotonic()
        return now * (_HASTE if reader is not None and (reader.cancelled or now > _reading.until) else 1)


_reading = _Reading()


def _listen_to_us() -> None:
    """Let that callback ask `_Clock`: PyAV offers no other way to cancel. Tests hold it to that."""
    from av.container import core

    if not isinstance(vars(core).get("time"), _Clock):
        vars(core)["time"] = _Clock()
