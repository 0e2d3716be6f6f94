"""Model bundles of a device: where they are installed, which is the newest, and when another one appears."""

import os
from pathlib import Path

from edgeml.bundle import Bundle as Bundle
from edgeml.bundle import VersionKey, eim_manifest, load_eim
from edgeml.bundle import load as load
from edgeml.bundle import read_manifest as read_manifest
from edgeml.bundle import sha256 as sha256
from edgeml.bundle import version_key as version_key
from edgeml.errors import BundleError, UnreadableError
from edgeml.files import unreadable
from edgeml.onnx_session import extras as extras
from edgeml.onnx_session import give_back as give_back
from edgeml.onnx_session import open_session as open_session
from edgeml.onnx_session import probe as probe
from edgeml.onnx_session import probe_shape as probe_shape
from edgeml.onnx_session import shrinking as shrinking


def component_folder(root: Path, name: str) -> Path:
    """Where the component `edgeml.model.<name>` links its bundle."""
    return root / "work" / f"edgeml.model.{name}" / "current"


def updater_folder(root: Path, name: str) -> Path:
    """Where the model updater links the bundle it installed."""
    return root / "work" / "edgeml.ModelUpdater" / "models" / name / "current"


def find(name: str, root: Path, refused: frozenset[Path] = frozenset()) -> Path | None:
    """The real folder of the newest installed bundle `name`; an update wins over a component of equal version.

    Folders that were `refused` already are passed over. Raises UnreadableError when there is none but in folders that
    this process may not read.
    """
    found = []
    for place in _places(name, root):
        try:
            if place.resolve() not in refused:
                found.append((version_key(read_manifest(place).version), place.resolve()))
        except BundleError:
            continue  # not there, or no bundle: `load` says why when it is the only one
    if not found and (text := "; ".join(filter(None, (unreadable(p / "model.json") for p in _places(name, root))))):
        raise UnreadableError(text)
    return max(found, key=lambda pair: pair[0])[1] if found else None


def find_eim(name: str, root: Path) -> Path:
    """`model.eim` of the newest installed bundle `name`, as `find` chooses it; one without a version is the oldest.

    A name with a slash is a bundle's folder. Raises BundleError where there is none or it is damaged, UnreadableError
    when there is none but in folders that this process may not read.
    """
    places = (Path(name),) if "/" in name else _places(name, root)
    found = [place for place in places if os.path.isfile(place / "model.eim")]  # noqa: PTH113  (which never raises)
    if not found:
        if text := "; ".join(filter(None, (unreadable(place / "model.eim") for place in places))):
            raise UnreadableError(f"waiting for model bundle {name}: {text}")
        raise BundleError(f"waiting for model bundle {name}: no model.eim in {' or '.join(map(str, places))}")
    return load_eim(max(found, key=_eim_version))


def _eim_version(folder: Path) -> VersionKey:
    try:
        return version_key(eim_manifest(folder).version)
    except BundleError:
        return (), False, ()


def _places(name: str, root: Path) -> tuple[Path, ...]:
    return updater_folder(root, name), component_folder(root, name)


class Watcher:
    """Notices that a bundle appeared or changed. `place` is a folder to watch instead of the installed bundles."""

    def __init__(self, name: str, root: Path, place: Path | None = None) -> None:
        self._name, self._root, self._place = name, root, place
        self._seen: tuple[Path, tuple[int, ...]] | None = None
        self._before: tuple[Path, tuple[int, ...]] | None = None
        self._refused: dict[Path, tuple[int, ...]] = {}
        self.unreadable = ""  # at the last `changed`: which folder may not be read, and by whom

    def refuse(self, folder: Path) -> None:
        """`folder` cannot be used as it was offered: offer another installed bundle, and this one when it changes.

        It may have changed already, as one does that is copied there while it is read.
        """
        self._refused[folder] = self._seen[1] if self._seen and self._seen[0] == folder else _state(folder)
        self._seen = self._before

    def refusing(self) -> bool:
        """Whether a bundle that was refused still lies, unchanged, where bundles are looked for."""
        places = [self._place] if self._place else _places(self._name, self._root)
        return any(self._refused.get(place.resolve(), ()) == _state(place) != () for place in places)

    def changed(self) -> Path | None:
        """The bundle's real folder when it is another one than at the last call, else None."""
        places = [self._place] if self._place is not None else _places(self._name, self._root)
        self.unreadable = "; ".join(filter(None, (unreadable(place / "model.json") for place in places)))
        refused = frozenset(folder for folder, state in self._refused.items() if _state(folder) == state)
        if self._place is not None:
            folder = None if self._place.resolve() in refused else self._place.resolve()
        else:
            try:
                folder = find(self._name, self._root, refused)
            except UnreadableError:
                folder = None
        if folder is None or not (state := _state(folder)) or (folder, state) == self._seen:
            return None
        self._before, self._seen = self._seen, (folder, state)
        return folder


def _state(folder: Path) -> tuple[int, ...]:
    """Times and sizes of a bundle's two main files; empty while model.json is missing."""
    try:
        states = [(folder / "model.json").stat()]
        states += [path.stat() for path in (folder / "model.onnx",) if path.exists()]
    except OSError:
        return ()
    return tuple(number for state in states for number in (state.st_mtime_ns, state.st_size))
