"""A keeper of clips without a component, and what it makes."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from camera_capture.clips import ClipKeeper
from camera_capture.packets import PacketReader
from camera_capture.preroll import Preroll
from camera_support import configured
from edgeml.component import Context
from edgeml.errors import EdgemlError
from edgeml.health import Health
from edgeml.messages import ClipCommand
from ipc_support import FakeIpc
from stream_support import Made, camera
from support import eventually


def frames_of(data: bytes) -> list[Any]:
    with av.open(io.BytesIO(data), "r") as video:
        return [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)]


class Keeper:
    """A keeper of its own, and what it has answered and sent."""

    def __init__(self, tmp_path: Path, masks: Any = (), **settings: Any) -> None:
        context = Context(ipc=FakeIpc(), health=Health("x", "1"), work=tmp_path, root=tmp_path, thing_name="t")
        self.health, self.folder = context.health, tmp_path / "clips" / "c"
        self.answers: dict[str, Any] = {}
        self.sent: list[tuple[Any, ...]] = []
        store: Any = self
        settings = {"s3_bucket": "bucket", "before_s": 10, **settings}
        made = configured(type="test_pattern", privacy_masks=masks, clips=settings)
        assert made.clips is not None
        self.preroll = Preroll(made.clips.before_s, made.clips.max_bytes)
        self.keeper = ClipKeeper("c", made, self.preroll, context, tmp_path, lambda: store, self.answer)
        self.keeper.start()

    def put(self, *arguments: Any) -> None:
        self.sent.append(arguments)

    def answer(self, command: ClipCommand, work: Callable[[], dict[str, Any]]) -> None:
        try:
            self.answers[command.request_id] = work()
        except EdgemlError as error:
            self.answers[command.request_id] = str(error)

    def ask(self, name: str, before_s: float = 60, after_s: float = 0, key: str = "") -> None:
        key = key or f"clips/t/2000/{name}.mp4"
        self.keeper.ask(ClipCommand(before_s=before_s, after_s=after_s, key=key, request_id=name))

    def answered(self, name: str) -> Any:
        return eventually(lambda: self.answers.get(name), 30, name)

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, *error: object) -> None:
        self.keeper.stop()

    @contextmanager
    def watching(self, stream: Made) -> Iterator[None]:
        """The packets of a camera that sends `stream`, until the end."""
        with camera(stream) as server:
            reader = PacketReader(server.url, shown="cam", limit_s=5, packets=self.preroll.tap()).open()
            thread = threading.Thread(target=lambda: list(iter(lambda: reader.read() if self.reading else None, None)))
            thread.start()
            try:
                eventually(lambda: self.preroll.codec, 10, "packets")
                yield
            finally:
                self.reading = False
                thread.join()
                reader.close()

    reading = True
