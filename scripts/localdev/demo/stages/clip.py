"""The seconds around a moment, from a network camera: the very packets that it sent."""

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from localdev.demo.stage import THING, Configuration, Evidence, Stage
from localdev.demo.stages.yard import FPS, SIZE

CAMERA, KEY = "gate", f"clips/{THING}/demo/gate.mp4"
STREAM_S, BEFORE_S, AFTER_S = 60, 3, 2
FRAMES = 4 * FPS  # that have come when the clip is asked for
ARRIVE_S = 10.0
SAME = 12  # bytes at the end of a packet, which no container changes; of a still picture there are few more

Pieces = list[tuple[float, bytes]]  # of a stream, and at which second of it they are sent


def stream(pictures: list[Path]) -> Pieces:
    """H.264 in a transport stream, as network cameras send it."""
    pieces: Pieces = []

    class Sent:
        at = 0.0

        def write(self, data: Any) -> int:
            pieces.append((self.at, bytes(data)))
            return len(data)

    sent = Sent()
    with av.open(sent, "w", format="mpegts", options={"flush_packets": "1"}) as output:
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(2 * FPS), "threads": "1"}
        video: Any = output.add_stream("libx264", rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        frames = [av.VideoFrame.from_ndarray(np.asarray(cv2.imread(str(path)), np.uint8), "bgr24") for path in pictures]
        frames = [frame.reformat(format="yuv420p") for frame in frames]
        for number in range(STREAM_S * FPS):
            sent.at = number / FPS
            frame = frames[number % len(frames)]
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return pieces


def packets(data: bytes) -> Iterator[bytes]:
    """The ends of a video's packets."""
    with av.open(io.BytesIO(data), "r") as video:
        for packet in video.demux(video=0):
            if packet.size:
                yield bytes(packet)[-SAME:]


class Gate:
    """A network camera: whoever asks gets the stream as time goes by."""

    def __init__(self, pieces: Pieces) -> None:
        ended = self._ended = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "video/mp2t")
                self.end_headers()
                began = time.monotonic()
                with suppress(OSError):  # nobody watches any more
                    for at, data in pieces:
                        if ended.wait(max(0.0, began + at - time.monotonic())):
                            return
                        self.wfile.write(data)

            def log_message(self, *message: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.1], name="gate")
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/stream"

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Clip(Stage):
    name = "clip"
    title = "the seconds around a moment, copied as the camera sent them"
    needs = ("motion",)
    _gate: Gate | None = None

    def prepare(self) -> None:
        self._bucket = self.world.outputs["DataBucketName"]
        pieces = stream(sorted((self.world.output / "yard").glob("*.jpg")))
        self._sent = set(packets(b"".join(data for _, data in pieces)))
        self._gate = Gate(pieces)
        self._frames = 0
        self._asked_at = 0.0
        self._reply: dict[str, Any] = {}
        self._figures: dict[str, Any] = {}

    def configuration(self) -> Configuration:
        assert self._gate is not None  # noqa: S101
        clips = {"s3_bucket": self._bucket, "before_s": BEFORE_S + 2, "keep_bytes": 10**8}
        return {"camera_capture": {"cameras": {CAMERA: {"type": "http", "location": self._gate.url, "clips": clips}}}}

    def begin(self) -> None:
        self.world.hear(f"edgeml/camera/{CAMERA}/frame", self._frame)
        self.world.hear(f"edgeml/camera/{CAMERA}/reply", self._answer)

    def _frame(self, topic: str, payload: bytes) -> None:
        self._frames += 1

    def _answer(self, topic: str, payload: bytes) -> None:
        self._reply = json.loads(payload)

    def tick(self) -> None:
        if self._frames >= FRAMES and not self._asked_at:
            self._asked_at = time.time()
            command = {"command": "clip", "before_s": BEFORE_S, "after_s": AFTER_S, "key": KEY, "request_id": "1"}
            self.world.core.publish(f"edgeml/camera/{CAMERA}/command", json.dumps(command).encode())

    def progress(self) -> str:
        return f"{self._reply.get('seconds', 0):.1f} s of video" if self._reply else f"{self._frames} frames"

    def finish(self) -> None:
        deadline = time.monotonic() + ARRIVE_S
        while self._asked_at and not self._reply and time.monotonic() < deadline:
            time.sleep(0.1)
        if not (path := self._reply.get("path")):
            return
        data = Path(path).read_bytes()
        (self.world.output / "clip.mp4").write_bytes(data)
        found = list(packets(data))
        with av.open(io.BytesIO(data), "r") as video:
            codec, frames = video.streams.video[0].codec_context.name, sum(1 for _ in video.decode(video=0))
        self._figures = {
            "codec": codec,
            "frames": frames,
            "bytes": len(data),
            "packets_as_they_were_sent": sum(packet in self._sent for packet in found),
            "packets": len(found),
            "in_s3": self._arrived(data, deadline),
            "clip": str(self.world.output / "clip.mp4"),
        }

    def _arrived(self, data: bytes, deadline: float) -> bool:
        client = self.world.cloud.aws.client("s3")
        while time.monotonic() < deadline:
            with suppress(client.exceptions.ClientError):
                return bool(client.get_object(Bucket=self._bucket, Key=KEY)["Body"].read() == data)
            time.sleep(0.2)
        return False

    def evidence(self) -> Evidence:
        seconds, figures = self._reply.get("seconds", 0.0), self._figures
        begins = self._asked_at - self._reply.get("captured_at", 0.0)
        told = {"seconds": seconds, "begins_s_before": round(begins, 1), "error": self._reply.get("error", "")}
        is_there = BEFORE_S <= begins < BEFORE_S + 3 and begins + AFTER_S - 1 < seconds < begins + AFTER_S + 1
        is_copy = 0 < figures.get("packets", 0) == figures["packets_as_they_were_sent"] == figures["frames"]
        ok = is_there and is_copy and figures["in_s3"]
        return Evidence(ok, told | figures, "expected a clip of the packets that the camera had sent")

    def end(self) -> None:
        if self._gate is not None:
            self._gate.close()
