"""A device that installs one job after the other, as the updater does."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml import models
from edgeml.errors import EdgemlError
from edgeml.messages import ModelActivate
from model_updater.config import Config
from model_updater.document import parse
from model_updater.installation import Installation, Tools
from model_updater.journal import Journal
from ota_support import MODEL, FileServer, bundle_files, document, zipped

CONFIG = Config(allow_http=True, min_free_bytes=0)


class Device:
    """Installs one job after the other, as the updater does; `probes` costs a process each time."""

    def __init__(self, root: Path, server: FileServer) -> None:
        self.root, self.server = root, server
        self.work = root / "work" / "edgeml.ModelUpdater"
        self.work.mkdir(parents=True)
        self.answer = ""
        self.on_confirm: Callable[[], None] = lambda: None
        self.on_done: Callable[[str], None] = lambda step: None
        self.probes = False
        self.asked: list[ModelActivate] = []

    def offer(self, version: str, content: bytes | None = None, **changes: Any) -> dict[str, Any]:
        content = zipped(bundle_files(version)) if content is None else content
        return document(content, version, self.server.add(content), **changes)

    def install(self, job: dict[str, Any], config: Config = CONFIG) -> None:
        """Raises the reason of a failure, after it was undone."""
        installation = self.installation(job, config)
        try:
            for name, step in installation.steps():
                if name != "probe" or self.probes:
                    step()
                self.journal.done = name
                self.on_done(name)
        except (EdgemlError, OSError):
            installation.undo()
            raise
        finally:
            installation.clean()

    def installation(self, job: dict[str, Any], config: Config = CONFIG) -> Installation:
        offered = parse(job)
        self.journal = Journal(job_id="j", execution_number=1, document=offered)

        def confirm(activation: ModelActivate) -> str:
            self.asked.append(activation)
            self.on_confirm()
            return self.answer

        tools = Tools(lambda renew: offered.deployment_artifact_path, confirm, lambda done: None, threading.Event())
        return Installation(self.journal, config, self.work, self.root, tools)

    @property
    def active(self) -> str:
        place = models.updater_folder(self.root, MODEL)
        return models.load(place).manifest.version if place.is_symlink() else ""

    @property
    def versions(self) -> set[str]:
        return {path.name.rpartition("-")[0] for path in (self.work / "models" / MODEL / "versions").glob("*")}


def unpacked(device: Device, job: dict[str, Any], config: Config) -> None:
    """The steps to `unpack`, all but that one with room enough."""
    for config_of, name in ((CONFIG, "admit"), (CONFIG, "download"), (config, "unpack")):
        dict(device.installation(job, config_of).steps())[name]()
