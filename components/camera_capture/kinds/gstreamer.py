"""A pipeline run by gst-launch-1.0, its frames read from a pipe: OpenCV's wheels come without GStreamer."""

import contextlib
import fcntl
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from camera_capture.camera import LocatedCamera
from camera_capture.source import Source
from edgeml import redact
from edgeml.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from camera_capture.source import Image

PIPE_BYTES = 1 << 20
MAX_LOG = 64 << 10  # bytes of the pipeline's output that are kept
TERM_S = 1.0
SPARE_S = 1.0  # beyond what the supervisor allows, which so is a little faster
_WORDS = ("ERROR", "WARNING")


class GStreamerCamera(LocatedCamera, frozen=True, kw_only=True, tag="gstreamer"):
    location: Annotated[str | int, Meta(description="gstreamer: pipeline without its sink")] = "0"
    width: Annotated[int, Meta(ge=0, le=7680, description="gstreamer: width of frames in pixels, needed")] = 0
    height: Annotated[int, Meta(ge=0, le=4320, description="gstreamer: height of frames in pixels, needed")] = 0

    def check(self, path: str) -> None:
        super().check(path)
        for name in ("width", "height"):
            if not getattr(self, name):
                raise ConfigError(f"{path}.{name}", "expected int >= 1, as gstreamer needs it, found 0")

    def open(self) -> "GStreamer":
        """Raises SourceError."""
        return GStreamer(self)


class GStreamer(Source):
    """Frames come through a pipe of their own: what elements print goes elsewhere, and shifts none of them."""

    live = True

    def __init__(self, camera: GStreamerCamera) -> None:
        import numpy as np

        tool = shutil.which("gst-launch-1.0")
        if tool is None:
            raise SourceError("gst-launch-1.0 is not installed (Debian: gstreamer1.0-tools)")
        self._camera = camera
        self._limit_s = camera.stall_timeout_s * 2 + SPARE_S
        self._lock = threading.Lock()
        self._log = bytearray()
        self._telling = ""
        stride = -(-camera.width * 3 // 4) * 4  # GStreamer pads rows of BGR to 4 bytes
        self._frame = bytearray(camera.height * stride)
        self._image: Image = np.ndarray((camera.height, camera.width, 3), np.uint8, self._frame, 0, (stride, 3, 1))
        self._process, self._frames = _started(tool, camera)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._frames, selectors.EVENT_READ)
        if self._process.stdout is not None:
            self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def grab(self) -> bool:
        frame, filled = memoryview(self._frame), 0
        deadline = time.monotonic() + self._limit_s
        while filled < len(frame):
            ready = {key.fd for key, _ in self._selector.select(max(0.0, deadline - time.monotonic()))}
            if self._frames in ready:
                count = os.readv(self._frames, [frame[filled:]])
                if not count:
                    raise SourceError(f"the pipeline ended: {self._reason()}")
                filled += count
            if ready - {self._frames}:
                self._listen()
            if time.monotonic() > deadline:
                raise SourceError(f"no whole frame within {self._limit_s:g} s: {self._heard() or 'not a word'}")
        return True

    def retrieve(self) -> "Image":
        return self._image

    def cancel(self) -> None:
        self._kill(signal.SIGKILL)

    def close(self) -> None:
        """End the whole group: a pipeline may have started programs of its own."""
        self._kill(signal.SIGTERM)
        self._exit(TERM_S)
        self._kill(signal.SIGKILL)
        with self._lock, contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TERM_S)
        self._selector.close()
        os.close(self._frames)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _kill(self, number: int) -> None:
        with self._lock:
            if self._process.returncode is None:  # not reaped: its number is still its own
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, number)

    def _listen(self) -> None:
        """Take what the pipeline prints, so that it never waits for us; keep little of it."""
        stdout = self._process.stdout
        data = os.read(stdout.fileno(), MAX_LOG) if stdout is not None else b""
        if not data and stdout is not None:
            self._selector.unregister(stdout)
        self._log += data
        if len(self._log) > MAX_LOG:
            self._telling = self._heard()
            del self._log[: -MAX_LOG // 2]

    def _heard(self) -> str:
        """The first line that tells of an error, without the secrets of the pipeline."""
        if self._telling:
            return self._telling
        lines = self._log.decode(errors="replace").splitlines()
        telling = next((line for line in lines if line.startswith(_WORDS)), "")
        return redact.text(telling, self._camera.where, *_words(self._camera))[:300]

    def _reason(self) -> str:
        """Why the pipeline ended, in words."""
        code = self._exit(TERM_S)
        while any(key.fd != self._frames for key, _ in self._selector.select(0)):
            self._listen()
        if code is None:
            ending = "it closed its output and did not exit"
        elif code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else ""
            ending = f"it was killed by signal {-code} {name}".rstrip()
        else:
            ending = f"exit code {code}" if code else "it reached its end"
        heard = self._heard()
        return f"{heard} ({ending})" if heard else ending

    def _exit(self, timeout: float) -> int | None:
        """The exit code, below 0 for a signal, within `timeout` seconds; not reaped yet."""
        deadline = time.monotonic() + timeout
        while self._process.returncode is None:
            with contextlib.suppress(ChildProcessError):
                done = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if done is not None:
                    return done.si_status if done.si_code == os.CLD_EXITED else -done.si_status
            if time.monotonic() > deadline:
                return None
            time.sleep(0.01)
        return self._process.returncode


def _started(tool: str, camera: GStreamerCamera) -> tuple["subprocess.Popen[bytes]", int]:
    """The process in a group of its own, and the end of the pipe from which its frames are read."""
    words = _words(camera)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a user's pipes are bounded in sum
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        caps = f"video/x-raw,format=BGR,width={camera.width},height={camera.height}"
        tail = ["!", "videoconvert", "!", "videoscale", "!", caps, "!", "fdsink", f"fd={writing}", "sync=false"]
        process = subprocess.Popen(
            [tool, "-q", *words, *tail],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[writing],
            start_new_session=True,
        )
    except BaseException as error:
        os.close(reading)
        if isinstance(error, OSError | ValueError):
            raise SourceError(f"gst-launch-1.0 cannot be started: {type(error).__name__}") from error
        raise
    finally:
        os.close(writing)
    return process, reading


def _words(camera: GStreamerCamera) -> list[str]:
    try:
        return shlex.split(camera.place())
    except ValueError as error:
        raise SourceError(f"the pipeline's text is wrong: {error}") from error
