"""Pictures of cameras for who watches them: encoded once for all, each with what was found in that very frame.

Nothing happens while nobody watches. While somebody does, one thread per camera reads its ring. Where no pipeline reads
the camera a frame is shown at once; else frames wait, for two seconds at the most, for the result with their id. Where
a pipeline has privacy they are shown with its result alone, after what it hides was made unrecognisable.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from edgeml import ring_look
from edgeml.errors import EdgemlError, FrameError
from edgeml.health import Health
from edgeml.messages import InferenceResult
from edgeml.pace import Pacer
from monitor.results import Results
from monitor.state import State

if TYPE_CHECKING:
    from edgeml.frames import Frame, FrameReader
    from monitor.encode import Image

log = logging.getLogger(__name__)

MAX_WATCHED = 32  # cameras at a time
MAX_THREADS = 2 * MAX_WATCHED  # those of cameras that nobody watches any more end in their time
WIDTHS = (320, 640)  # what is asked for goes up to one of these, or to the widest that is configured
HELD_S, HELD_BYTES = 2.0, 48 << 20  # frames that wait for a result, of all cameras
POLL_S, IDLE_S = 0.02, 0.25  # for a frame, while others wait for their results and while none does
BROKEN_S = 1.0  # before a ring that cannot be read is tried again


@dataclass(frozen=True)
class Picture:
    """A frame as JPEG, at most as wide as was asked for. `results` is a JSON list of {pipeline, result}.

    `width` and `height` are the JPEG's, those of the source count in the results' boxes; `captured_at` is Unix time.
    """

    camera: str
    frame_id: int
    captured_at: float
    width: int
    height: int
    source_width: int
    source_height: int
    results: bytes
    jpeg: bytes = field(repr=False)


Shown = Callable[[Picture], None]
Command = Callable[[str, Literal["start", "stop"]], None]  # of a camera; may wait for the core


@dataclass(frozen=True)
class Wish:
    """What somebody wants to see: how wide, and whether boxes are drawn into the picture."""

    width: int
    burnt: bool = False


@dataclass(eq=False)
class Watcher:
    """Who wants to see a camera; `shown` is called on the camera's thread and must not wait."""

    wish: Wish
    shown: Shown


@dataclass
class _Held:
    frame_id: int
    captured_at: float
    at: float
    source: tuple[int, int]
    image: "Image"


class Pictures:
    """The cameras that are watched. Thread-safe. `fps` and `max_width` bound what is encoded."""

    def __init__(
        self,
        state: State,
        health: Health,
        spawn: Callable[[str, Callable[[], None]], object],
        *,
        fps: float = 10.0,
        max_width: int = 960,
    ) -> None:
        self.state, self.health, self.fps, self.max_width = state, health, fps, max_width
        self._spawn = spawn
        self._lock = threading.Lock()
        self._cameras: dict[str, _Camera] = {}
        state.listen(self._heard)

    def watch(self, camera: str, width: int, shown: Shown, *, burnt: bool = False) -> Callable[[], None] | None:
        """Have `shown` called with pictures of a camera until the answer is called.

        None if too many are watched, or this is no camera's name. A camera that is not there may come.
        """
        if not ring_look.can_be(camera):
            return None
        widths = [each for each in WIDTHS if width <= each < self.max_width]
        watcher = Watcher(Wish(widths[0] if widths else self.max_width, burnt), shown)
        with self._lock:
            watched = self._cameras.get(camera)
            if watched is None:
                watched_now = sum(bool(each.watchers) for each in self._cameras.values())
                if watched_now >= MAX_WATCHED or len(self._cameras) >= MAX_THREADS:
                    return None
                watched = self._cameras[camera] = _Camera(camera, self)
                self._spawn(f"pictures-{camera}", watched.run)
            watched.watchers = [*watched.watchers, watcher]
        return lambda: self._unwatch(camera, watcher)

    def _unwatch(self, camera: str, watcher: Watcher) -> None:
        with self._lock:
            watched = self._cameras.get(camera)
            if watched is not None:
                watched.watchers = [each for each in watched.watchers if each is not watcher]

    def ended(self, camera: "_Camera") -> bool:
        """Whether nobody watches a camera any more, which is then forgotten: its thread ends."""
        with self._lock:
            if camera.watchers:
                return False
            if self._cameras.get(camera.name) is camera:
                del self._cameras[camera.name]
            return True

    def close(self) -> None:
        """Show nothing any more."""
        self.state.unlisten(self._heard)
        with self._lock:
            for camera in self._cameras.values():
                camera.watchers = []

    def room(self) -> int:
        """How many bytes of frames a camera may keep waiting."""
        return HELD_BYTES // max(1, len(self._cameras))

    def _heard(self, kind: str, name: str, told: Any, message: bytes) -> None:
        if kind == "result" and isinstance(told, InferenceResult) and told.source.camera:
            if told.source.pipeline:  # in pixels of a crop of the frame
                return
            watched = self._cameras.get(told.source.camera)
            if watched is not None:
                watched.results.put(name, told)


@dataclass(frozen=True)
class Cameras:
    """What can be seen of cameras, and done with them."""

    pictures: Pictures
    command: Command


class _Camera:
    """One camera while it is watched: `run` is its thread."""

    def __init__(self, name: str, pictures: Pictures) -> None:
        self.name, self._pictures = name, pictures
        self.watchers: list[Watcher] = []
        self.results = Results()
        self._held: deque[_Held] = deque()
        self._size = 0
        self._last = 0  # id of the frame that was shown last
        self._pacer = Pacer(1 / pictures.fps)

    def run(self) -> None:
        from edgeml.frames import FrameReader

        problems, subject = self._pictures.health.problems, f"cameras.{self.name}"
        try:
            rings = self._pictures.state.neighbours.known().rings
            with FrameReader(self.name, directory=rings, policy="every") as reader:
                while not self._pictures.ended(self):
                    try:
                        frame = reader.read(self._pause(), copy=False)
                    except FrameError as error:  # another user's, or no ring at all
                        problems.found("unreadable", subject, str(error))
                        time.sleep(BROKEN_S)
                        continue
                    if frame is not None:
                        problems.cleared("unreadable", subject)
                    self._step(frame, reader)
        finally:
            problems.cleared("unreadable", subject)

    def _pause(self) -> float:
        return POLL_S if self._held else IDLE_S

    def _step(self, frame: "Frame | None", reader: "FrameReader") -> None:
        """Take a frame, and show what is to be shown now."""
        if frame is not None and frame.frame_id < self._last:  # the ring's writer began anew
            self._last = 0
            self._drop(len(self._held))
        private = self._pictures.state.private(self.name)
        if private is None:  # nobody knows yet what may be shown
            self._drop(len(self._held))
            return
        try:
            if frame is not None and not private and not self.results.come():
                self._drop(len(self._held))
                self._at_once(frame, reader)
            elif frame is not None:
                self._hold(frame, whole=bool(private))
            self._show_held(private)
        except EdgemlError as error:
            self._pictures.health.count("pictures.failed")
            self._pictures.health.error(f"camera {self.name}: {error}")

    def _at_once(self, frame: "Frame", reader: "FrameReader") -> None:
        from monitor import encode

        if not self._pacer.take():
            return
        while (newer := reader.read(0, copy=False)) is not None:  # no result is waited for: the newest is best
            frame = newer
        # One picture is encoded in place; for several the frame might not stay so long.
        several = len({watcher.wish for watcher in self.watchers}) > 1
        image = encode.scaled(frame.image, frame.pixel_format, self._widest(), copy=several)
        if image is not frame.image and not frame.valid():
            return
        held = _Held(frame.frame_id, frame.wall_ns / 1e9, 0.0, (frame.width, frame.height), image)
        pictures = self._encoded(held, {})
        if image is not frame.image or frame.valid():
            self._emit(pictures, held)

    def _hold(self, frame: "Frame", *, whole: bool) -> None:
        from monitor import encode

        # What is hidden counts in the source's pixels, before anything is scaled.
        image = encode.scaled(frame.image, frame.pixel_format, frame.width if whole else self._widest())
        if not frame.valid():
            return
        held = _Held(frame.frame_id, frame.wall_ns / 1e9, time.monotonic(), (frame.width, frame.height), image)
        self._held.append(held)
        self._size += image.nbytes
        while self._held and (self._size > self._pictures.room() or self._held[0].at < held.at - HELD_S):
            self._drop(1)

    def _show_held(self, private: frozenset[str]) -> None:
        """Show the newest frame whose results are there, if one is due; those before it are not shown any more."""
        if not self._held or self._pacer.wait_s():
            return
        for at in reversed(range(len(self._held))):
            held = self._held[at]
            found = self.results.of(held.frame_id, held.captured_at)
            hidden = [result.hidden for result in found.values() if result.hidden is not None]
            if not found or any(name not in found or found[name].hidden is None for name in private):
                continue
            if hidden and held.image.shape[1::-1] != held.source:
                continue  # it was scaled before anybody knew that something is to be hidden
            from monitor import encode

            self._drop(at + 1)
            self._pacer.took()
            encode.hide(held.image, hidden)
            self._emit(self._encoded(held, found), held)
            return

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._size -= self._held.popleft().image.nbytes

    def _widest(self) -> int:
        return max((watcher.wish.width for watcher in self.watchers), default=WIDTHS[0])

    def _encoded(self, held: _Held, found: dict[str, InferenceResult]) -> dict[Wish, Picture]:
        """A picture for each wish. Raises EncodeError."""
        from monitor import encode

        results = Results.encoded(found)
        made = {}
        for wish in {watcher.wish for watcher in self.watchers}:
            image = encode.scaled(held.image, "bgr24", wish.width, copy=False)
            height, width = image.shape[:2]
            if wish.burnt:
                image = encode.burnt(image, Results.boxes(found), (width / held.source[0], height / held.source[1]))
            jpeg = encode.jpeg(image)
            made[wish] = Picture(self.name, held.frame_id, held.captured_at, width, height, *held.source, results, jpeg)
        return made

    def _emit(self, pictures: dict[Wish, Picture], held: _Held) -> None:
        self._last = held.frame_id
        self._pictures.health.count("pictures", len(pictures))
        self._pictures.health.observe("picture", max(0.0, time.time() - held.captured_at))
        for watcher in self.watchers:
            picture = pictures.get(watcher.wish)
            if picture is not None:
                watcher.shown(picture)
