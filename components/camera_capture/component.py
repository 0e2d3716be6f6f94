"""Cameras by configuration: start, stop and change each on its own, and answer commands."""

import functools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from camera_capture import __version__
from camera_capture.asked import Command, Envelope, command_of
from camera_capture.camera import Camera, Clips, NetworkCamera
from camera_capture.capture import CameraWorker
from camera_capture.clips import ClipKeeper
from camera_capture.config import Config
from camera_capture.large import LargePictures
from camera_capture.passwords import Passwords
from camera_capture.preroll import Preroll
from camera_capture.snapshots import SnapshotTaker, check_places
from camera_capture.stills import StillSender
from edgeml import messages, redact
from edgeml.component import Component, Context
from edgeml.errors import EdgemlError, RefusedError, SpoolError
from edgeml.health import Scope
from edgeml.ipc import Subscription
from edgeml.log import kv
from edgeml.messages import CameraMotion, CameraReply, ClipCommand, FrameReady, StillCommand
from edgeml.s3 import Uploader

log = logging.getLogger(__name__)

KEEP_S = 5.0  # how often it is tried again what could not be had
DELIVERS_S = 30.0  # a camera that gave a frame within this time delivers
MAX_ERROR = 1000  # characters of a reply


class CameraCapture(Component[Config]):
    """Captures frames from cameras, streams and files into shared-memory rings."""

    name = "edgeml.CameraCapture"
    version = __version__

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._config = Config()
        self._workers: dict[str, CameraWorker] = {}
        self._takers: dict[str, SnapshotTaker] = {}
        self._senders: dict[str, StillSender] = {}
        self._keepers: dict[str, ClipKeeper] = {}
        self._subscribed: dict[str, Subscription] = {}  # to commands, by camera
        self._prerolls: dict[str, Preroll] = {}
        self._uploader: Uploader | None = None
        self._passwords = Passwords(context)
        self._keeper: threading.Thread | None = None
        self._unbegun: set[str] = set()  # cameras whose threads could not be started
        self._lock = threading.Lock()  # commands come on the inbox thread, configuration on the main thread

    def start(self, config: Config) -> None:
        check_places(config.cameras, self.context.thing_name)
        self._config = config
        self._prepare_uploads()
        cameras = config.cameras.values()
        self._passwords.keep({one.password for one in cameras if isinstance(one, NetworkCamera) and one.password})
        for name, camera in config.cameras.items():
            self._add(name, camera)
        self.context.health.note("cameras", "" if config.cameras else "none configured")
        if self._keeper is None:
            self._keep_up()

    def reconfigure(self, config: Config) -> None:
        check_places(config.cameras, self.context.thing_name)
        before = self._config
        changed_rings = (config.ring_directory, config.share_with_group) != (
            before.ring_directory,
            before.share_with_group,
        )
        with self._lock:
            for name in list(self._takers):
                if changed_rings or config.cameras.get(name) != self._config.cameras.get(name):
                    self._remove(name)
            for name in self._subscribed.keys() - config.cameras.keys():
                self._subscribed.pop(name).close()
            self.start(config)

    def stop(self) -> None:
        with self._lock:
            parts: list[CameraWorker | SnapshotTaker | ClipKeeper] = [*self._takers.values(), *self._workers.values()]
            parts += self._keepers.values()
            for part in parts:
                part.ask_to_stop()
            for name in list(self._takers):
                self._remove(name)
        if self._uploader is not None:
            self._uploader.close()

    def _prepare_uploads(self) -> None:
        """The way of snapshots to S3. That it cannot be had is no reason to have no cameras."""
        config = self._config
        try:
            if self._uploader is not None:
                self._uploader.configure(max_bytes=config.spool_bytes, clock_wait_s=config.clock_wait_s)
            elif any(camera.uploads for camera in config.cameras.values()):
                self._uploader = Uploader(self.context, max_bytes=config.spool_bytes, clock_wait_s=config.clock_wait_s)
        except (SpoolError, OSError) as error:
            self.context.health.problems.found("disk_full", "snapshots", f"no uploads of snapshots: {error}")
            return
        self.context.health.problems.cleared("disk_full", "snapshots")

    def _add(self, name: str, camera: Camera) -> None:
        if name in self._takers:
            return
        context, directory = self.context, Path(self._config.ring_directory)
        answer, large = functools.partial(self._answer, name), None
        kept = camera.clips or Clips()
        preroll = Preroll(kept.before_s, kept.max_bytes)
        if isinstance(camera, NetworkCamera) and camera.streams is not None:
            large = LargePictures(preroll, camera.privacy_masks)
        if large is not None or camera.clips is not None:
            self._prerolls[name] = preroll
        self._takers[name] = SnapshotTaker(name, camera.snapshots, context, directory, self._uploads, large)
        if camera.stills is not None:
            self._senders[name] = StillSender(name, camera.stills, context, directory, self._uploads, answer, large)
        if camera.clips is not None:
            self._keepers[name] = ClipKeeper(name, camera, preroll, context, directory, self._uploads, answer)
        if camera.enabled:
            self._workers[name] = self._worker(name, camera)
        self._begin(name)
        if name not in self._subscribed:
            self._subscribe(name)

    def _uploads(self) -> Uploader | None:
        return self._uploader

    def _worker(self, name: str, camera: Camera) -> CameraWorker:
        return CameraWorker(
            name,
            camera,
            self.context,
            Path(self._config.ring_directory),
            self._announce,
            lambda: (
                not any(
                    time.monotonic() - other.delivered_at < DELIVERS_S
                    for other in list(self._workers.values())
                    if other.name != name
                )
            ),
            share_with_group=self._config.share_with_group,
            passwords=self._passwords,
            preroll=self._prerolls.get(name),
        )

    def _begin(self, name: str) -> None:
        """Start the threads of a camera. Where the system has none left, it is tried again later."""
        try:
            self._takers[name].start()
            if name in self._keepers:
                self._keepers[name].start()
            if name in self._workers:
                self._workers[name].start()
        except (RuntimeError, OSError, MemoryError) as error:
            self._unbegun.add(name)
            self._health(name).found("worker_failed", f"cannot be started: {error}")
            return
        self._unbegun.discard(name)
        self._health(name).cleared("worker_failed")

    def _keep_up(self) -> None:
        try:
            self._keeper = self.context.spawn("cameras", self._keep)
        except (RuntimeError, MemoryError) as error:  # what runs goes on; the next change of configuration tries again
            self.context.health.problems.found("worker_failed", "cameras", f"the keeper cannot be started: {error}")

    def _keep(self) -> None:
        """Try again, now and then, what could not be had when it was wanted."""
        while not self.context.stopping.wait(KEEP_S):
            with self._lock:
                for name in list(self._unbegun):
                    self._begin(name)
                if self._uploader is None:
                    self._prepare_uploads()

    def _subscribe(self, name: str) -> None:
        try:
            topic, handler = messages.camera_command(name), functools.partial(self._command, name)
            self._subscribed[name] = self.context.ipc.subscribe(topic, handler)
        except RefusedError as error:  # frames are worth having without commands
            self._health(name).scope("command").failed(error)

    def _health(self, name: str) -> Scope:
        return self.context.health.scope(f"cameras.{name}")

    def _remove(self, name: str) -> None:
        self._unbegun.discard(name)
        self._senders.pop(name, None)
        if (keeper := self._keepers.pop(name, None)) is not None:
            keeper.stop()
        self._takers.pop(name).stop()
        self._prerolls.pop(name, None)
        if (worker := self._workers.pop(name, None)) is not None:
            worker.stop()

    def _announce(self, news: FrameReady | CameraMotion) -> None:
        topic = messages.camera_frame if isinstance(news, FrameReady) else messages.camera_motion
        try:
            self.context.ipc.publish(topic(news.camera), messages.encode(news), wait=0)
        except EdgemlError as error:  # who waits for the message misses one; the ring has frame and motion
            self.context.health.error(error)

    def _command(self, name: str, topic: str, payload: bytes) -> None:
        asked = Envelope()
        try:
            asked = messages.decode(payload, Envelope)
            command = command_of(payload, asked)
        except msgspec.MsgspecError as error:
            text = f"not a camera command: {error}"[:MAX_ERROR]
            self._reply(name, command="", request_id=str(asked.request_id)[:MAX_ERROR], ok=False, error=text)
            return
        self._answer(name, command, functools.partial(self._executed, name, command))

    def _answer(self, name: str, command: Command, work: Callable[[], dict[str, Any] | None]) -> None:
        """Do what was asked, and say what came of it; None is answered later."""
        try:
            answer = work()
        except Exception as error:
            known = isinstance(error, EdgemlError)
            if not known:
                log.exception("command failed unexpectedly %s", kv(camera=name, command=command.command))
            self.context.health.error(error)
            answer = {"ok": False, "error": redact.text(str(error) if known else f"internal error: {error!r}")}
        if answer is not None:
            self._reply(name, command=command.command, request_id=str(command.request_id)[:MAX_ERROR], **answer)

    def _executed(self, name: str, command: Command) -> dict[str, Any] | None:
        with self._lock:
            answer = self._obeyed(name, command)
        return self._taken(answer) if isinstance(answer, SnapshotTaker) else answer

    def _taken(self, taker: SnapshotTaker) -> dict[str, Any]:
        """Without the lock: a frame is waited for, and may have to be decoded."""
        path, frame = taker.take()
        return {"path": str(path), "frame_id": frame.frame_id, "captured_at": frame.wall_ns / 1e9}

    def _obeyed(self, name: str, command: Command) -> dict[str, Any] | SnapshotTaker | None:
        camera = self._config.cameras.get(name)
        if camera is None:
            return {"ok": False, "error": f"there is no camera {name} any more"}
        if isinstance(command, ClipCommand):
            if name not in self._keepers:
                return {"ok": False, "error": f"camera {name} keeps no clips: it has no `clips` in its configuration"}
            self._keepers[name].ask(command)
            return None
        if isinstance(command, StillCommand):
            if name not in self._senders:
                return {"ok": False, "error": f"camera {name} sends no stills: it has no `stills` in its configuration"}
            return self._senders[name].ask(command)
        if command.command == "snapshot":
            return self._takers[name]
        if command.command == "stop" and name in self._workers:
            self._workers.pop(name).stop()
        elif command.command == "start" and name not in self._workers:
            self._workers[name] = self._worker(name, camera)
            self._begin(name)
        log.info("command %s", kv(camera=name, command=command.command))
        return {}

    def _reply(self, camera: str, **fields: Any) -> None:
        reply = CameraReply(camera=camera, **fields)
        try:
            self.context.ipc.publish(messages.camera_reply(camera), messages.encode(reply))
        except EdgemlError as error:  # who asked hears nothing; the next one may
            self.context.health.error(error)
            log.warning("no reply %s", kv(camera=camera, error=error))
