"""Cameras by configuration: start, stop and change each on its own, and answer commands."""

import functools
import logging
import threading
from pathlib import Path
from typing import Any

import msgspec

from camera_capture import __version__
from camera_capture.capture import CameraWorker
from camera_capture.config import Camera, Config
from camera_capture.snapshots import SnapshotTaker
from edgeml import messages
from edgeml.component import Component, Context
from edgeml.errors import EdgemlError
from edgeml.log import kv
from edgeml.messages import CameraCommand, CameraReply, FrameReady
from edgeml.s3 import Uploader

log = logging.getLogger(__name__)


class CameraCapture(Component[Config]):
    """Captures frames from cameras, streams and files into shared-memory rings."""

    name = "edgeml.CameraCapture"
    version = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._config = Config()
        self._workers: dict[str, CameraWorker] = {}
        self._takers: dict[str, SnapshotTaker] = {}
        self._subscribed: set[str] = set()
        self._uploader: Uploader | None = None
        self._lock = threading.Lock()  # commands come on the inbox thread, configuration on the main thread

    def start(self, config: Config) -> None:
        if self._uploader is not None:
            self._uploader.configure(max_bytes=config.spool_bytes)
        elif any(camera.snapshots.s3_bucket for camera in config.cameras.values()):
            self._uploader = Uploader(self.context, max_bytes=config.spool_bytes)
        self._config = config
        for name, camera in config.cameras.items():
            self._add(name, camera)
        self.context.health.note("cameras", "" if config.cameras else "none configured")

    def reconfigure(self, config: Config) -> None:
        changed_rings = config.ring_directory != self._config.ring_directory
        with self._lock:
            for name in list(self._takers):
                if changed_rings or config.cameras.get(name) != self._config.cameras.get(name):
                    self._remove(name)
            self.start(config)

    def stop(self) -> None:
        with self._lock:
            parts: list[CameraWorker | SnapshotTaker] = [*self._takers.values(), *self._workers.values()]
            for part in parts:
                part.halt()
            for name in list(self._takers):
                self._remove(name)
        if self._uploader is not None:
            self._uploader.close()

    def _add(self, name: str, camera: Camera) -> None:
        if name in self._takers:
            return
        directory = Path(self._config.ring_directory)
        if camera.enabled:
            self._workers[name] = CameraWorker(name, camera, self.context, directory, self._announce)
        self._takers[name] = SnapshotTaker(name, camera.snapshots, self.context, directory, self._uploader)
        if name not in self._subscribed:  # IPC has no unsubscribe that is worth its while: a removed camera answers so
            self._subscribed.add(name)
            self.context.ipc.subscribe(messages.camera_command(name), functools.partial(self._command, name))

    def _remove(self, name: str) -> None:
        self._takers.pop(name).stop()
        if (worker := self._workers.pop(name, None)) is not None:
            worker.stop()

    def _announce(self, frame: FrameReady) -> None:
        try:
            self.context.ipc.publish(messages.camera_frame(frame.camera), messages.encode(frame), wait=0)
        except EdgemlError as error:  # who waits for the message misses one; the frame itself is in the ring
            self.context.health.error(error)

    def _command(self, name: str, topic: str, payload: bytes) -> None:
        try:
            command = messages.decode(payload, CameraCommand)
        except msgspec.MsgspecError as error:
            self._reply(name, command="", ok=False, error=f"not a camera command: {error}")
            return
        try:
            with self._lock:
                answer = self._executed(name, command)
            self._reply(name, command=command.command, request_id=str(command.request_id), **answer)
        except EdgemlError as error:
            self.context.health.error(error)
            self._reply(name, command=command.command, request_id=str(command.request_id), ok=False, error=str(error))

    def _executed(self, name: str, command: CameraCommand) -> dict[str, Any]:
        camera = self._config.cameras.get(name)
        if camera is None:
            return {"ok": False, "error": f"there is no camera {name} any more"}
        if command.command == "snapshot":
            path, frame = self._takers[name].take()
            return {"path": str(path), "frame_id": frame.frame_id, "captured_at": frame.wall_ns / 1e9}
        if command.command == "stop" and name in self._workers:
            self._workers.pop(name).stop()
        elif command.command == "start" and name not in self._workers:
            directory = Path(self._config.ring_directory)
            self._workers[name] = CameraWorker(name, camera, self.context, directory, self._announce)
        log.info("command %s", kv(camera=name, command=command.command))
        return {}

    def _reply(self, camera: str, **fields: Any) -> None:
        reply = CameraReply(camera=camera, **fields)
        self.context.ipc.publish(messages.camera_reply(camera), messages.encode(reply))
