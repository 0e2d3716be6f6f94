"""Installed versions of one model, and the link that says which of them is active.

    models/<name>/current -> versions/<version>-<sha256, shortened>
    models/<name>/versions/<version>-<sha256, shortened>/model.onnx, model.json, ...

A version's folder appears by rename and never changes: what has a name here is whole.
"""

import logging
import os
import shutil
from pathlib import Path

from edgeml.files import sync_folder
from edgeml.log import kv

log = logging.getLogger(__name__)

SHARED_MODE = 0o750
DIGITS = 16  # of the artifact's sha256, in a version's folder name


class Store:
    """The folder `models/<name>`. Every method may be repeated after a crash in the middle of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions = folder / "versions"
        self._link = folder / "current"
        self._fresh = folder / ".current"
        self._rubbish = folder / ".removed"

    def path(self, entry: str) -> Path:
        return self._versions / entry

    def active(self) -> str:
        """The entry that `current` points at, or "" when there is none, or its folder was deleted."""
        return self._link.readlink().name if self._link.is_symlink() and self._link.exists() else ""

    def place(self, unpacked: Path, entry: str) -> None:
        """Give the folder `unpacked` its final name. It lies on the same disk and is durable itself."""
        if not self.path(entry).exists():
            self._make()
            unpacked.rename(self.path(entry))
            sync_folder(self._versions)

    def activate(self, entry: str) -> None:
        """Point `current` at an entry, or remove it for "". Readers see the old or the new one, never none between."""
        if entry == self.active():
            return
        if not entry:
            self._link.unlink()
        else:
            os.utime(self.path(entry))  # `prune` keeps those that were active last
            self._fresh.unlink(missing_ok=True)
            self._fresh.symlink_to(Path("versions") / entry)
            self._fresh.replace(self._link)
        sync_folder(self._folder)

    def remove(self, entry: str) -> None:
        """Delete a version. It loses its name first, so that a half deleted one is never taken for a whole one."""
        if entry == self.active() or not self.path(entry).exists():
            return
        shutil.rmtree(self._rubbish, ignore_errors=True)
        self.path(entry).rename(self._rubbish)
        shutil.rmtree(self._rubbish)

    def prune(self, keep: int) -> None:
        """Delete all but the active version and the `keep` versions that were active most recently."""
        shutil.rmtree(self._rubbish, ignore_errors=True)
        self._fresh.unlink(missing_ok=True)
        if not self._versions.is_dir():
            return
        others = [path for path in self._versions.iterdir() if path.name != self.active()]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in others[keep:]:
            self.remove(path.name)

    def _make(self) -> None:
        self._versions.mkdir(parents=True, exist_ok=True)
        for folder in (self._folder, self._folder.parent, self._folder.parent.parent):
            sync_folder(folder)


def entry_name(version: str, sha256: str) -> str:
    """The content is part of the name, so that one version offered with two contents makes two entries."""
    return f"{version}-{sha256[:DIGITS]}"


def share(work: Path) -> None:
    """Let the group of this process enter the folders of all bundles below `work`, which the core may have closed.

    What cannot be opened is logged: whoever needs a bundle says that it cannot read it.
    """
    models = work / "models"
    folders = [work, models, *models.glob("*"), *models.glob("*/versions"), *models.glob("*/versions/*")]
    for folder in folders:
        try:
            if folder.is_dir() and not folder.is_symlink():
                folder.chmod(SHARED_MODE)
        except OSError as error:
            log.error("folder not shared with the group %s", kv(folder=folder, reason=error.strerror))
