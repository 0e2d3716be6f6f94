"""One model from job document to active version, in steps that can each be cut off and begun again.

The journal names the last completed step. A step that was interrupted is done again from its beginning, so each one
leaves the world as it found it or as it wants it. Two renames decide everything: the one that gives a complete,
durable folder its name, and the one that turns the `current` link. Whatever is cut off between, `current` points
at a whole version.
"""

import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeml import models
from edgeml.errors import BundleError
from edgeml.files import sync_folder
from edgeml.log import kv
from edgeml.messages import ModelActivate
from model_updater.archive import unpack
from model_updater.config import Config
from model_updater.document import check_group, check_signature, may_downgrade
from model_updater.download import Limits, download
from model_updater.errors import UpdateError
from model_updater.journal import Journal
from model_updater.probe import probe
from model_updater.store import Store, entry_name, share

log = logging.getLogger(__name__)

Step = tuple[str, Callable[[], None]]


@dataclass(frozen=True)
class Tools:
    """What an installation needs of the outside. `confirm` returns the reason for a refusal, "" for consent."""

    url: Callable[[bool], str]
    confirm: Callable[[ModelActivate], str]
    progress: Callable[[int], None]
    stopping: threading.Event


class Installation:
    """The job of `journal`, in `work`. Steps raise EdgemlError or OSError when the job has failed."""

    def __init__(self, journal: Journal, config: Config, work: Path, root: Path, tools: Tools) -> None:
        if journal.document is None:
            raise ValueError("a journal without a document has no steps")
        self._journal, self._config, self._work, self._root, self._tools = journal, config, work, root, tools
        self._document = document = journal.document
        self._entry = entry_name(document.model_version, document.sha256)
        self._store = Store(work / "models" / document.model_name)
        self._artifact = work / "job" / "artifact"
        self._unpacked = work / "job" / "unpacked"

    def steps(self) -> list[Step]:
        """In order. `switch` is the only one that users of the model can see."""
        return [
            ("admit", self._admit),
            ("download", self._download),
            ("unpack", self._unpack),
            ("inspect", self._inspect),
            ("probe", self._probe),
            ("place", self._place),
            ("switch", self._switch),
            ("confirm", self._confirm),
        ]

    @property
    def active(self) -> bool:
        """Whether this job's version is active and was not before."""
        return self._store.active() == self._entry != self._journal.previous

    def undo(self) -> None:
        """After a failure: the old version active, nothing of the new one left. May be repeated."""
        if not self._journal.done:
            return  # nothing was changed, and `previous` may not be known yet
        if self.active:
            previous = self._journal.previous
            if not self._store.path(previous).exists():
                previous = ""  # someone has deleted it meanwhile
            self._store.activate(previous)
            log.warning("link put back %s", kv(model=self._document.model_name, to=previous or "nothing"))
        self._store.remove(self._entry)

    def clean(self) -> None:
        """After any outcome: no temporary files, no versions beyond those to keep. May be repeated."""
        shutil.rmtree(self._work / "job", ignore_errors=True)
        self._store.prune(self._config.keep_versions)

    def _admit(self) -> None:
        document, config = self._document, self._config
        self._check_origin()
        active = models.find(document.model_name, self._root)
        version = models.read_manifest(active).version if active else ""
        self._journal.previous = self._store.active()
        self._journal.from_version = version
        older = version and models.version_key(document.model_version) <= models.version_key(version)
        if older and not (config.allow_downgrade or may_downgrade(document, config.public_key)):
            raise UpdateError(
                f"version {document.model_version} is not newer than {version}, which is active, "
                "and the signed job does not say allow_downgrade"
            )
        self._check_component()
        if document.size > config.max_download_bytes:
            raise UpdateError(f"the artifact has {document.size} bytes, {config.max_download_bytes} are allowed")
        held = self._artifact.stat().st_size if self._artifact.exists() else 0
        self._check_room(2 * document.size - held)  # weights hardly shrink when they are packed

    def _check_origin(self) -> None:
        """The job comes from whoever holds the key, and is meant for this device."""
        check_group(self._document, self._config.thing_group)
        if self._config.public_key:
            check_signature(self._document, self._config.public_key, self._config.require_signature)

    def _check_room(self, size: int) -> int:
        """The bytes that may be used. Raises UpdateError unless they are `size` or more."""
        free, needed = shutil.disk_usage(self._work).free, size + self._config.min_free_bytes
        if free < needed:
            raise UpdateError(f"{free} bytes of disk are free, {needed} are needed")
        return free - self._config.min_free_bytes

    def _check_component(self) -> None:
        """Users take the newest installed bundle, so that an older one than a component's would be without effect."""
        name, version = self._document.model_name, self._document.model_version
        try:
            installed = models.read_manifest(models.component_folder(self._root, name)).version
        except BundleError:
            return  # there is none, or none that can be used
        if models.version_key(installed) > models.version_key(version):
            raise UpdateError(
                f"version {version} would not be used: component edgeml.model.{name} has {installed}, which wins"
            )

    def _download(self) -> None:
        if self._store.path(self._entry).exists():
            return  # kept from an earlier installation
        self._artifact.parent.mkdir(mode=0o700, exist_ok=True)
        sync_folder(self._work)
        config, resumed = self._config, self._artifact.exists()
        limits = Limits(config.download_timeout_s, config.stall_timeout_s, config.allow_http)
        fetch = (self._tools.url, self._artifact, self._document.size, limits, self._tools.stopping)
        download(*fetch, self._tools.progress)
        found = models.sha256(self._artifact)
        if found != self._document.sha256 and resumed:
            # A power cut may have left anything at the end of the part we went on from.
            self._artifact.unlink()
            download(*fetch, self._tools.progress)
            found = models.sha256(self._artifact)
        if found != self._document.sha256:
            raise UpdateError(f"sha256 of the artifact is {found}, the job says {self._document.sha256}")
        sync_folder(self._artifact.parent)

    def _unpack(self) -> None:
        if self._store.path(self._entry).exists():
            return
        shutil.rmtree(self._unpacked, ignore_errors=True)
        room = self._check_room(self._document.size)
        unpack(self._artifact, self._unpacked, min(self._config.max_unpacked_bytes, room))
        sync_folder(self._unpacked.parent)

    @property
    def _folder(self) -> Path:
        kept = self._store.path(self._entry)
        return kept if kept.exists() else self._unpacked

    def _inspect(self) -> None:
        """The bundle is whole, and is the model it was announced as."""
        manifest = models.load(self._folder).manifest
        if (manifest.name, manifest.version) != (self._document.model_name, self._document.model_version):
            raise BundleError(f"the bundle is {manifest.name} {manifest.version}, not what the job says")

    def _probe(self) -> None:
        """ONNX Runtime loads it, and one run gives finite outputs of the declared shapes."""
        try:
            probe(self._folder, self._config.probe_timeout_s, self._config.probe_memory_bytes, self._tools.stopping)
        except UpdateError as error:
            made_with = self._document.onnxruntime_version
            raise UpdateError(f"{error} (made with ONNX Runtime {made_with})" if made_with else str(error)) from error

    def _place(self) -> None:
        self._store.place(self._unpacked, self._entry)
        if self._config.share_with_group:
            share(self._work)

    def _switch(self) -> None:
        self._check_origin()  # again: a restart may lie between, and what it went on with
        self._store.activate(self._entry)

    def _confirm(self) -> None:
        activation = ModelActivate(
            model=self._document.model_name,
            version=self._document.model_version,
            path=str(self._store.path(self._entry)),
            request_id=f"{self._journal.job_id}/{self._journal.execution_number}",
        )
        if reason := self._tools.confirm(activation):
            raise UpdateError(reason)
