"""Video sources: each opens, gives frames as BGR arrays, and closes. All of them may block; `capture` copes with it."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from camera_capture.config import Camera
from edgeml.errors import SourceError

if TYPE_CHECKING:
    import numpy as np

    Image = np.ndarray[Any, np.dtype[np.uint8]]

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class Source(Protocol):
    """`fps` is the source's own rate (0 when unknown); `live` sources set the pace, others are paced by us."""

    fps: float
    live: bool

    def grab(self) -> bool:
        """Wait for the next frame; False at the end. Raises SourceError."""

    def retrieve(self) -> "Image":
        """The grabbed frame, height x width x 3 (BGR) or height x width. Does not wait."""

    def cancel(self) -> None:
        """Make a waiting `grab` of another thread return, where that can be done."""

    def close(self) -> None: ...


class Video:
    """Devices, files and streams, through OpenCV."""

    def __init__(self, camera: Camera) -> None:
        import cv2

        self._shown = redacted(str(camera.location))
        self._loop = camera.type == "file" and camera.loop
        self.live = camera.type != "file"
        if camera.type == "file" and not Path(str(camera.location)).is_file():
            raise SourceError(f"{self._shown}: no such file")
        self._capture = _opened(cv2, camera)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(f"{self._shown}: cannot be opened as {camera.type}")
        self.fps = _sane_fps(self._capture.get(cv2.CAP_PROP_FPS))
        self._rewind = (cv2.CAP_PROP_POS_FRAMES, 0)
        self._frames = 0

    def grab(self) -> bool:
        if self._capture.grab():
            self._frames += 1
            return True
        if self.live:
            raise SourceError(f"{self._shown}: the stream ended")
        if self._frames == 0:
            raise SourceError(f"{self._shown}: no frame can be decoded (truncated or not a video)")
        if not self._loop:
            return False
        self._frames = 0
        self._capture.set(*self._rewind)
        return self.grab()

    def retrieve(self) -> "Image":
        ok, image = self._capture.retrieve()
        if not ok or image is None or image.size == 0:
            raise SourceError(f"{self._shown}: a frame cannot be decoded")
        decoded: Image = image
        return decoded

    def cancel(self) -> None:
        return  # OpenCV's readers cannot be interrupted

    def close(self) -> None:
        self._capture.release()


def _opened(cv2: Any, camera: Camera) -> Any:
    if camera.type == "device":
        text = str(camera.location)
        location: int | str = int(text) if text.isdigit() else text
        capture = cv2.VideoCapture(location, cv2.CAP_V4L2)
        for prop, value in ((cv2.CAP_PROP_FRAME_WIDTH, camera.width), (cv2.CAP_PROP_FRAME_HEIGHT, camera.height)):
            if value:
                capture.set(prop, value)
        if camera.fps:
            capture.set(cv2.CAP_PROP_FPS, camera.fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture
    timeout_ms = int(camera.stall_timeout_s * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    return cv2.VideoCapture(str(camera.location), cv2.CAP_FFMPEG, limits)


def _sane_fps(fps: float) -> float:
    return fps if 0.1 <= fps <= 1000 else 0.0


class Images:
    """The pictures of a folder in the order of their names. Unreadable ones are reported once and passed over."""

    fps = 1.0
    live = False

    def __init__(self, camera: Camera) -> None:
        self._folder = Path(str(camera.location))
        if not self._folder.is_dir():
            raise SourceError(f"{self._folder}: no such folder")
        self._loop = camera.loop
        self._files = self._listed()
        self._image: Image | None = None
        self.unreadable: set[Path] = set()

    def _listed(self) -> Iterator[Path]:
        return iter(sorted(p for p in self._folder.iterdir() if p.suffix.lower() in PICTURES))

    def grab(self) -> bool:
        import cv2

        for start in (self._files, None):
            if start is None:
                if not self._loop:
                    return False
                self._files = self._listed()
            for path in self._files:
                image = cv2.imread(str(path), cv2.IMREAD_COLOR) if _filled(path) else None
                if image is not None and image.size:
                    self._image = image  # type: ignore[assignment]
                    return True
                self.unreadable.add(path)
        raise SourceError(f"{self._folder}: no readable picture ({', '.join(sorted(PICTURES))})")

    def retrieve(self) -> "Image":
        if self._image is None:
            raise SourceError(f"{self._folder}: nothing was grabbed")
        return self._image

    def cancel(self) -> None:
        return

    def close(self) -> None:
        self._image = None


class Pattern:
    """Moving colour bars with the frame number as text: a source that needs no camera."""

    live = False

    def __init__(self, camera: Camera) -> None:
        import cv2
        import numpy as np

        self.fps = camera.fps or 30.0
        self._cv2 = cv2
        width, height = camera.width or 1280, camera.height or 720
        bars = np.array(
            [[255, 255, 255], [0, 255, 255], [255, 255, 0], [0, 255, 0], [255, 0, 255], [0, 0, 255]], np.uint8
        )
        row = bars[np.arange(width * 2) * 6 // width % 6]
        self._wide = np.ascontiguousarray(np.broadcast_to(row, (height, width * 2, 3)))
        self._width = width
        self._number = 0

    def grab(self) -> bool:
        self._number += 1
        return True

    def retrieve(self) -> "Image":
        shift = self._number * 4 % self._width
        image = self._wide[:, shift : shift + self._width].copy()
        text = f"{self._number} {time.strftime('%H:%M:%S')}"
        self._cv2.putText(image, text, (16, 48), self._cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 0, 0), 3)
        return image

    def cancel(self) -> None:
        return

    def close(self) -> None:
        return


class GStreamer:
    """A pipeline run by gst-launch-1.0, its frames read from a pipe: OpenCV's wheels come without GStreamer."""

    fps = 0.0
    live = True

    def __init__(self, camera: Camera) -> None:
        import numpy as np

        tool = shutil.which("gst-launch-1.0")
        if tool is None:
            raise SourceError("gst-launch-1.0 is not installed (Debian: gstreamer1.0-tools)")
        if not (camera.width and camera.height):
            raise SourceError("gstreamer sources need width and height in the configuration")
        caps = f"video/x-raw,format=BGR,width={camera.width},height={camera.height}"
        tail = ["!", "videoconvert", "!", "videoscale", "!", caps, "!", "fdsink", "fd=1", "sync=false"]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        self._process = subprocess.Popen(
            [tool, "-q", *shlex.split(str(camera.location)), *tail],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._frame = bytearray(camera.height * camera.width * 3)
        self._image: Image = np.frombuffer(self._frame, np.uint8).reshape(camera.height, camera.width, 3)

    def grab(self) -> bool:
        frame, filled = memoryview(self._frame), 0
        while filled < len(frame):
            count = os.readv(self._process.stdout.fileno(), [frame[filled:]]) if self._process.stdout else 0
            if not count:
                raise SourceError(f"the pipeline ended: {self._reason()}")
            filled += count
        return True

    def retrieve(self) -> "Image":
        return self._image

    def cancel(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()

    def _reason(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        telling = [line for line in lines if line.startswith(("ERROR", "WARNING"))]
        return redacted(telling[0]) if telling else f"exit code {self._process.poll()}"


def _filled(path: Path) -> bool:
    """Whether a listed file is still there and not empty."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def open_source(camera: Camera) -> Source:
    """The source that `camera` describes, open. Raises SourceError saying what cannot be opened and why."""
    if camera.type == "images":
        return Images(camera)
    if camera.type == "gstreamer":
        return GStreamer(camera)
    if camera.type == "test_pattern":
        return Pattern(camera)
    return Video(camera)


def redacted(location: str) -> str:
    """`location` fit for a log: URLs and pipelines without user names, passwords and keys."""
    text = re.sub(r"(?<=://)\S*@", "***@", location)
    return re.sub(r"(?i)((?:pass\w*|pwd|user-pw|token|key|auth\w*)=)[^&\s]+", r"\1***", text)
