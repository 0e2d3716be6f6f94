"""Where the .eim comes from: a file or socket, an installed bundle, or Edge Impulse Studio."""

import logging
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edge_impulse_runner.config import Model
from edgeml import models
from edgeml.edge_impulse.parameters import Settings
from edgeml.edge_impulse.studio import Studio
from edgeml.errors import BundleError, StudioError, UnreadableError
from edgeml.files import unreadable, write_atomic
from edgeml.log import kv

log = logging.getLogger(__name__)

MAX_MODEL_BYTES = 2 << 30
BUILD_TIMEOUT_S, BUILD_POLL_S = 1800.0, 5.0
_MACHINES = {"x86_64": "x86_64", "aarch64": "aarch64", "armv7l": "armv7"}


class ModelFinder:
    """Finds the model's file. `studio` is asked for only when neither file nor bundle is configured."""

    def __init__(
        self, settings: Settings, config: Model, *, root: Path, work: Path, studio: Callable[[], Studio]
    ) -> None:
        self._settings, self._config, self._root, self.work, self._studio = settings, config, root, work, studio

    def locate(self, stopping: threading.Event) -> Path:
        """An executable file or a listening socket. May take minutes when Studio has to build the model.

        Raises BundleError when it is not there yet, StudioError, SecretError for the API key.
        """
        file = self._settings.model_file
        if file is not None and (text := unreadable(file)):
            raise UnreadableError(f"ei_local_model_file: {text}")
        if file is not None and file.exists():
            return file if file.is_socket() else self._runnable(file)
        if file is not None:
            log.warning("ei_local_model_file does not exist %s", kv(path=file))
        if self._config.bundle:
            return self._runnable(models.find_eim(self._config.bundle, self._root))
        return self._from_studio(stopping)

    def installed(self) -> Path | None:
        """What `locate` would find now if a bundle is where it looks; None if not. Raises BundleError."""
        file = self._settings.model_file
        if not self._config.bundle or (file is not None and os.path.exists(file)):  # noqa: PTH110  (which never raises)
            return None
        return self._runnable(models.find_eim(self._config.bundle, self._root))

    def _runnable(self, file: Path) -> Path:
        """`file`, or a copy of our own when it is not executable: other people's files are left as they are."""
        file = file.resolve()
        if os.access(file, os.X_OK):
            return file
        state = file.stat()
        copy = self.work / f"model-{state.st_ino}-{state.st_mtime_ns}.eim"
        if copy.exists():
            return copy
        try:
            write_atomic(copy, file.read_bytes(), 0o700)
            for older in self.work.glob("model-*.eim"):
                if older != copy:
                    older.unlink()
        except OSError as error:
            raise BundleError(f"{file}: cannot make an executable copy: {error}") from error
        return copy

    def _from_studio(self, stopping: threading.Event) -> Path:
        folder = self.work / "models"
        try:
            return _downloaded(self._studio(), self._config, folder, stopping)
        except StudioError as error:
            kept = sorted(folder.glob("*/model.eim"), key=lambda path: path.stat().st_mtime)
            if not kept:
                raise
            log.warning("using the model downloaded before %s", kv(path=kept[-1], reason=error))
            return kept[-1]


def deployment_type() -> str:
    """Studio's name for what runs on this machine. Raises StudioError when Studio has nothing for it."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise StudioError(f"Studio builds no models for {platform.machine()}; set model.deployment")
    return f"runner-linux-{machine}"


def _downloaded(studio: Studio, config: Model, folder: Path, stopping: threading.Event) -> Path:
    """The newest build of the project, downloaded if need be; older ones are then removed."""
    project = studio.project()
    query = {"type": config.deployment or deployment_type(), "modelType": config.variant}
    found = studio.get(f"{project}/deployment", **query)
    if not found.get("hasDeployment"):
        _build(studio, project, query, stopping)
        found = studio.get(f"{project}/deployment", **query)
    name = f"{project}-v{int(found.get('version') or 0)}-{config.variant}-{query['type'].replace('/', '_')}"
    target = folder / name / "model.eim"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        log.info("downloading model %s", kv(project=project, **query))
        studio.download(f"{project}/deployment/download", target, max_bytes=MAX_MODEL_BYTES, **query)
    for other in folder.iterdir():
        if other.name != name:
            shutil.rmtree(other, ignore_errors=True)
    return target


def _build(studio: Studio, project: int, query: dict[str, str], stopping: threading.Event) -> None:
    targets = studio.get(f"{project}/deployment/targets/data-sources").get("targets") or []
    engine = next((target.get("preferredEngine") for target in targets if target.get("format") == query["type"]), None)
    if engine is None:
        raise StudioError(f"project {project} cannot be built as {query['type']}")
    body = {"engine": engine, "modelType": query["modelType"]}
    job = studio.post(f"{project}/jobs/build-ondevice-model", body, type=query["type"]).get("id")
    log.info("Studio builds the model %s", kv(project=project, job=job, engine=engine))
    deadline = time.monotonic() + BUILD_TIMEOUT_S
    while time.monotonic() < deadline and not stopping.wait(BUILD_POLL_S):
        status = studio.get(f"{project}/jobs/{job}/status").get("job") or {}
        if status.get("finished"):
            if not status.get("finishedSuccessful"):
                raise StudioError(f"build job {job} of project {project} failed")
            return
    raise StudioError(f"build job {job} of project {project} did not end")
