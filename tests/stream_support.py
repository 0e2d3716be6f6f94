"""Small streams of H.264, and a server that sends them as a camera does: as time goes by."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from hostile_http import OK, RawServer, raw_server

FPS, SIZE, RATE = 20, (64, 48), 16000
KINDS = 12  # of pictures, which come again and again


@dataclass
class Made:
    """A stream's bytes, and the second at which each piece of them is sent."""

    pieces: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.pieces)


def picture(number: int, size: tuple[int, int] = SIZE) -> Any:
    """White on the right; on the left a grey level that tells the number, up to 11."""
    made = np.full((size[1], size[0], 3), 255, np.uint8)
    made[:, : size[0] // 2] = number % KINDS * 20
    return made


def made(
    seconds: float,
    *,
    codec: str = "libx264",
    sound: str = "",
    size: tuple[int, int] = SIZE,
    gop_s: float = 0.5,
    between: int = 0,
    container: str = "mpegts",
    turned: int = 0,
) -> Made:
    """A stream in a container that can be sent. `between` B-frames; `sound` is the name of an encoder."""
    stream = Made()

    class Sink:
        at = 0.0

        def write(self, data: Any) -> int:
            stream.pieces.append((self.at, bytes(data)))
            return len(data)

    sink = Sink()
    with av.open(sink, "w", format=container, options={"flush_packets": "1"}) as output:
        options = {"g": str(round(gop_s * FPS)), "bf": str(between), "threads": "1", "preset": "ultrafast"}
        video: Any = output.add_stream(codec, rate=FPS, options=options if codec == "libx264" else {})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        if turned:
            video.set_display_rotation(turned)
        audio: Any = output.add_stream(sound, rate=RATE, layout="mono") if sound else None
        samples = 0
        pictures = [av.VideoFrame.from_ndarray(picture(number, size), format="bgr24") for number in range(KINDS)]
        frames = [one.reformat(*size, "yuv420p") for one in pictures]
        for number in range(round(seconds * FPS)):
            sink.at = number / FPS
            frame = frames[number % KINDS]
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(video.encode(frame))
            while audio is not None and samples < sink.at * RATE:
                silence = av.AudioFrame(format=audio.codec_context.format.name, layout="mono", samples=1024)
                silence.sample_rate, silence.pts, silence.time_base = RATE, samples, Fraction(1, RATE)
                for plane in silence.planes:
                    plane.update(bytes(plane.buffer_size))
                output.mux(audio.encode(silence))
                samples += 1024
        output.mux(video.encode())
        if audio is not None:
            output.mux(audio.encode())
    return stream


@contextmanager
def camera(stream: Made, began: float | None = None) -> Iterator[RawServer]:
    """Sends it to whoever asks, and hangs up at its end; from its beginning, or from where it is if it `began` then.

    It hangs up on everybody when it is given another behaviour.
    """

    def behave(sock: Any, ended: threading.Event) -> None:
        sock.sendall(OK + b"Content-Type: video/mp2t\r\n\r\n")
        asked = time.monotonic()
        zero = asked if began is None else began
        for at, data in stream.pieces:
            if zero + at < asked:
                continue
            if ended.wait(max(0.0, zero + at - time.monotonic())) or server.behave is not behave:
                return
            sock.sendall(data)

    with raw_server(behave) as server:
        yield server


def packets(stream: Made) -> list[Any]:
    """All of its packets, of a container that stays open."""
    opened = av.open(io.BytesIO(stream.data), "r")
    return [packet for packet in opened.demux() if packet.size]


def levels(data: bytes | Path, where: slice = slice(0, 24)) -> list[int]:
    """The numbers that a video's frames tell."""
    with av.open(io.BytesIO(data) if isinstance(data, bytes) else str(data), "r") as video:
        frames = [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)]
    return [round(float(frame[:, where].mean()) / 20) for frame in frames]
