"""Cameras that speak HTTP: MJPEG streams and snapshots are read here, everything else (HLS, MP4 ...) by FFmpeg."""

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from camera_capture.camera import NetworkCamera
from camera_capture.errors import UndecodableError
from camera_capture.http_address import Address, authorization, escaped
from camera_capture.multipart import MAX_PART, Multipart
from camera_capture.packets import PacketReader
from camera_capture.source import Source
from camera_capture.video import Video, reader
from edgeml import http, pictures, redact
from edgeml.errors import HttpError, PictureError, SourceError

if TYPE_CHECKING:
    from camera_capture.source import Image

SOONER = 0.9  # of `stall_timeout_s`: what went wrong is told before the supervisor takes it for a hanging driver
_ENDLESS = 1 << 60  # bytes of a stream
_BOUNDARY = re.compile(r"boundary\s*=\s*(\"[^\"]*\"|[^;\s]*)", re.IGNORECASE)
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"RIFF")


class HttpCamera(NetworkCamera, frozen=True, kw_only=True, tag="http"):
    location: Annotated[str | int, Meta(description="http: URL")] = "0"
    every_s: Annotated[
        float, Meta(ge=0, le=86400, description="http: seconds between two pictures of a snapshot URL; 0 takes 1 s")
    ] = 0

    def open(self) -> "HttpPictures":
        """Raises SourceError."""
        return HttpPictures(self)

    def reader(self) -> PacketReader:
        return reader(self, escaped(self.place()))


class HttpPictures(Source):
    """`multipart/...` is a stream, `image/...` a snapshot that is asked for again and again."""

    def __init__(self, camera: HttpCamera) -> None:
        self._camera = camera
        self._shown = redact.url(camera.place())
        self._address = Address.of(camera.where)
        self._header = ""  # shown only to a server that asks, and as it asks
        self._closing = contextlib.ExitStack()
        self._stream: http.Stream | None = None
        self._parts: Multipart | None = None
        self._video: Video | None = None
        self._data: bytes | None = None
        self._opened = self._cancelled = False

    def open(self) -> None:
        stream, kind = self._ask()
        self._opened = True
        first = b"" if kind.startswith(("multipart/", "image/")) else self._received(stream)
        if kind.startswith("multipart/") or first.lstrip().startswith(b"--"):
            found = _BOUNDARY.search(stream.headers.get("Content-Type") or "")
            self._parts = Multipart(
                _Replay(first, lambda: self._received(stream)), found[1] if found else "", self._shown
            )
            self.live = True
        elif kind.startswith("image/") or (first.startswith(_MAGIC) and stream.headers.get("Content-Length")):
            self._data = first + self._rest(stream)
            self.fps = 1 / (self._camera.every_s or 1.0)
        elif first.startswith(_MAGIC[0]):  # pictures without anything in between
            self._parts = Multipart(_Replay(first, lambda: self._received(stream)), "", self._shown)
            self.live = True
        elif kind.startswith("text/html"):
            raise SourceError(f"{self._shown}: answers with a page, not with pictures; is the path right?")
        else:
            self._end()
            self._play()

    @property
    def reading(self) -> Source:
        return self._video or self

    def _play(self) -> None:
        self._video = video = Video(self._camera, self._camera.reader)
        video.packets = self.packets
        if self._cancelled:
            video.cancel()
        video.open()
        self.live, self.fps = video.live, video.fps

    def grab(self) -> bool:
        if not self._opened:
            self.open()
        if self._video is not None:
            return self._video.grab()
        if self._parts is not None:
            self._bound()
            self._data = self._parts.next()
            if self._data is None:
                raise SourceError(f"{self._shown}: the stream ended")
            return True
        if self._data is None:
            stream, kind = self._ask()
            if kind.startswith("multipart/"):
                raise SourceError(f"{self._shown}: was a picture and is a stream now")
            self._data = self._rest(stream)
        return True

    def retrieve(self) -> "Image":
        if self._video is not None:
            return self._video.retrieve()
        data, self._data = self._data or b"", None
        try:
            return pictures.decoded(data, self._shown)
        except PictureError as error:
            raise UndecodableError(str(error)) from error

    def cancel(self) -> None:
        self._cancelled = True
        if self._video is not None:
            self._video.cancel()
        stream = self._stream
        if stream is not None and stream.connection.timed is not None:
            with contextlib.suppress(OSError):
                stream.connection.timed.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._end()
        if self._video is not None:
            self._video.close()

    def _end(self) -> None:
        self._stream = None
        self._closing.close()

    def _ask(self) -> tuple[http.Stream, str]:
        """The answer to a GET, and its content type. Raises SourceError."""
        for _ in range(2):
            self._end()
            stream = self._got()
            if stream.status == 200:
                return stream, (stream.headers.get("Content-Type") or "").strip().lower()
            challenge = stream.headers.get_all("WWW-Authenticate") or []
            answer = authorization(self._address, challenge) if stream.status == 401 else None
            if answer is None or answer == self._header:
                break
            self._header = answer
        hint = " (user or password)" if stream.status in (401, 403) else ""
        self._end()
        raise SourceError(f"{self._shown}: HTTP {stream.status} {stream.reason[:80]}{hint}")

    def _got(self) -> http.Stream:
        limit = SOONER * self._camera.stall_timeout_s
        limits = http.Limits(total_s=limit, connect_s=limit, stall_s=limit, max_bytes=_ENDLESS)
        headers = {"Accept": "*/*", "User-Agent": "edgeml"} | ({"Authorization": self._header} if self._header else {})
        client = http.Client(context=_tls() if self._address.scheme == "https" else None)
        try:
            opened = client.opened(
                "GET", self._address.url, limits, headers=headers, redirects=3, cross_host=not self._address.is_secret
            )
            self._stream = self._closing.enter_context(opened)
        except HttpError as error:
            raise SourceError(redact.text(str(error), self._camera.where)) from error
        return self._stream

    def _bound(self) -> None:
        """A part may take as long as a source may be silent, however it trickles in."""
        if self._stream is not None and self._stream.connection.timed is not None:
            limit = SOONER * self._camera.stall_timeout_s
            self._stream.connection.timed.bound(time.monotonic() + limit, limit, _ENDLESS)

    def _received(self, stream: http.Stream) -> bytes:
        try:
            return stream.read1()
        except HttpError as error:
            raise SourceError(redact.text(str(error), self._camera.where)) from error

    def _rest(self, stream: http.Stream) -> bytes:
        data = bytearray()
        while piece := self._received(stream):
            data += piece
            if len(data) > MAX_PART:
                raise SourceError(f"{self._shown}: a picture of more than {MAX_PART} bytes")
        self._end()
        return bytes(data)


class _Replay:
    """What was read to see what it is, and then the rest."""

    def __init__(self, first: bytes, receive: Callable[[], bytes]) -> None:
        self._first, self._receive = first, receive

    def __call__(self) -> bytes:
        first, self._first = self._first, b""
        return first or self._receive()


def _tls() -> ssl.SSLContext:
    """Cameras sign their certificates themselves; FFmpeg does not look at them either."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
