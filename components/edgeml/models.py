"""Model bundles: a folder with `model.onnx` and `model.json`, found, verified, loaded, probed and watched.

The inferencer, the model updater and the training scripts all use this module, so a bundle that one of them
accepts is a bundle for all of them.
"""

import hashlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from edgeml.errors import BundleError, ConfigError
from edgeml.messages import ModelRef

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime as ort

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Task = Literal["classification", "detection", "anomaly", "regression"]
DType = Literal["float32", "float16", "uint8"]

VersionKey = tuple[tuple[int, ...], bool, tuple[tuple[int, int, str], ...]]  # numbers, is a release, identifiers
MAX_VERSION = 64  # characters
_VERSION = re.compile(r"v?(\d+(?:\.\d+){0,3})(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)

PROBE_LIMIT = 4096  # the largest side, in pixels or elements, that a probe fills in for a dynamic dimension


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """How an image or a vector becomes the input tensor: `(pixel * scale - mean) / std`, in `color` and `layout`.

    `size` is [width, height] in pixels; [0, 0] takes the frame's own size rounded up to a multiple of `multiple`.
    `shape` replaces layout and size for inputs that are no images, without the batch dimension.
    """

    name: str
    layout: Literal["NCHW", "NHWC", "tensor"] = "NCHW"
    size: tuple[int, int] = (0, 0)
    multiple: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    resize: Literal["stretch", "letterbox", "crop"] = "stretch"
    resize_shorter: Annotated[int, msgspec.Meta(ge=0, le=PROBE_LIMIT)] = 0
    shape: list[int] = []
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    scale: float = 1.0
    mean: list[float] = []
    std: list[float] = []
    dtype: DType = "float32"


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """Which decoder reads the outputs, with its parameters. A probe checks `shapes` (by output name, -1 is any)."""

    decoder: str
    parameters: dict[str, Any] = {}
    shapes: dict[str, list[int]] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`model.json`. `files` names further files of the bundle with their sha256; `labels` may lie in labels.txt."""

    name: Name
    version: str
    task: Task
    sha256: Sha256
    input: Input
    output: Output
    labels: list[str] = []
    thresholds: dict[str, float | list[float]] = {}
    files: dict[str, Sha256] = {}
    license: str = ""
    source: str = ""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `path` is the real folder: it stays valid when a `current` link is switched."""

    path: Path
    manifest: Manifest
    labels: tuple[str, ...]

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.manifest.name, self.manifest.version)

    @property
    def model(self) -> Path:
        return self.path / "model.onnx"

    def array(self, name: str) -> "np.ndarray[Any, Any]":
        """A .npy file of the bundle. Raises BundleError when it is missing, not declared, or holds objects."""
        import numpy as np

        if name not in self.manifest.files:
            raise BundleError(f"{self.path}: {name} is not declared in model.json (files)")
        try:
            loaded: np.ndarray[Any, Any] = np.load(self.path / name, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise BundleError(f"{self.path / name}: {error}") from error
        return loaded


def read_manifest(folder: Path) -> Manifest:
    """`model.json` of a bundle, not yet compared with the files. Raises BundleError."""
    path = folder / "model.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise BundleError(f"{path}: {error}") from error


def load(folder: Path) -> Bundle:
    """The bundle in `folder`, every file compared with its sha256. Raises BundleError naming file and reason."""
    folder = folder.resolve()
    manifest = read_manifest(folder)
    version_key(manifest.version)
    for name, expected in {"model.onnx": manifest.sha256, **manifest.files}.items():
        path = folder / name
        if "\0" in name or path.resolve().parent != folder:
            raise BundleError(f"{folder}: file {name!r} of model.json lies outside the bundle")
        found = sha256(path)
        if found != expected:
            raise BundleError(f"{path}: sha256 is {found}, model.json says {expected}")
    return Bundle(folder, manifest, _labels(folder, manifest))


def _labels(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    if manifest.labels or "labels.txt" not in manifest.files:
        return tuple(manifest.labels)
    try:
        return tuple((folder / "labels.txt").read_text(encoding="utf-8").splitlines())
    except ValueError as error:
        raise BundleError(f"{folder / 'labels.txt'}: {error}") from error


def sha256(path: Path) -> str:
    """Hex digest of a file. Raises BundleError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error


def version_key(version: str) -> VersionKey:
    """Order of versions: `7`, `1.4` and `1.4.2` compare number by number, pre-releases as https://semver.org says.

    Raises BundleError for anything else.
    """
    match = _VERSION.fullmatch(version) if len(version) <= MAX_VERSION else None
    if match is None:
        raise BundleError(f"version {version[:MAX_VERSION]!r} is neither a number nor semantic (1.2.3)")
    numbers = [int(part) for part in match[1].split(".")]
    identifiers = match[2].split(".") if match[2] else []
    pre_release = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in identifiers)
    return (*numbers, *[0] * (4 - len(numbers))), not identifiers, pre_release


def component_folder(root: Path, name: str) -> Path:
    """Where the component `edgeml.model.<name>` links its bundle."""
    return root / "work" / f"edgeml.model.{name}" / "current"


def updater_folder(root: Path, name: str) -> Path:
    """Where the model updater links the bundle it installed."""
    return root / "work" / "edgeml.ModelUpdater" / "models" / name / "current"


def find(name: str, root: Path, refused: frozenset[Path] = frozenset()) -> Path | None:
    """The real folder of the newest installed bundle `name`; an update wins over a component of equal version.

    Folders that were `refused` already are passed over.
    """
    found = []
    for place in (updater_folder(root, name), component_folder(root, name)):
        try:
            if place.resolve() not in refused:
                found.append((version_key(read_manifest(place).version), place.resolve()))
        except BundleError:
            continue  # not there, or not readable: `load` says why when it is the only one
    return max(found, key=lambda pair: pair[0])[1] if found else None


class Watcher:
    """Notices that a bundle appeared or changed. `place` is a folder to watch instead of the installed bundles."""

    def __init__(self, name: str, root: Path, place: Path | None = None) -> None:
        self._name, self._root, self._place = name, root, place
        self._seen: tuple[Path, tuple[int, ...]] | None = None
        self._before: tuple[Path, tuple[int, ...]] | None = None
        self._refused: dict[Path, tuple[int, ...]] = {}

    def refuse(self, folder: Path) -> None:
        """`folder` cannot be used as it is: offer another installed bundle, and this one again when it changes."""
        self._refused[folder] = _state(folder)
        self._seen = self._before

    def changed(self) -> Path | None:
        """The bundle's real folder when it is another one than at the last call, else None."""
        refused = frozenset(folder for folder, state in self._refused.items() if _state(folder) == state)
        if self._place is not None:
            folder = None if self._place.resolve() in refused else self._place.resolve()
        else:
            folder = find(self._name, self._root, refused)
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


def open_session(
    bundle: Bundle,
    *,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    threads: int = 0,
    optimization: Literal["all", "extended", "basic", "off"] = "all",
) -> "ort.InferenceSession":
    """An ONNX Runtime session on the bundle's model. `threads` 0 lets ONNX Runtime choose.

    Raises ConfigError for a provider this build of ONNX Runtime lacks, BundleError for a model it cannot load.
    """
    # ONNX Runtime's builds write usage data below the home folder and may send it; devices must not.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    present = ort.get_available_providers()
    for provider in providers:
        if provider not in present:
            raise ConfigError("providers", f"{provider} is not in this ONNX Runtime, present are {', '.join(present)}")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread pool steals the core that the camera and the publisher need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = {
        "all": levels.ORT_ENABLE_ALL,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "basic": levels.ORT_ENABLE_BASIC,
        "off": levels.ORT_DISABLE_ALL,
    }[optimization]
    try:
        session = ort.InferenceSession(str(bundle.model), options, providers=list(providers))
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise BundleError(f"{bundle.model}: ONNX Runtime cannot load it: {_first_line(error)}") from error
    names = [tensor.name for tensor in session.get_inputs()]
    if bundle.manifest.input.name not in names:
        raise BundleError(f"{bundle.model}: no input {bundle.manifest.input.name!r}, it has {', '.join(names)}")
    return session


def probe(session: "ort.InferenceSession", bundle: Bundle) -> None:
    """Run the model once on zeros and compare its outputs with what model.json declares. Raises BundleError."""
    import numpy as np

    tensor = np.zeros(probe_shape(bundle.manifest.input), dtype=bundle.manifest.input.dtype)
    try:
        outputs = session.run(None, {bundle.manifest.input.name: tensor})
    except Exception as error:  # as above
        raise BundleError(f"{bundle.model}: does not run on {tensor.shape}: {_first_line(error)}") from error
    for declared, output in zip(session.get_outputs(), outputs, strict=True):
        array = np.asarray(output)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BundleError(f"{bundle.model}: output {declared.name} is not finite on a zero input")
        expected = bundle.manifest.output.shapes.get(declared.name)
        if expected is not None and not _fits(array.shape, expected):
            raise BundleError(f"{bundle.model}: output {declared.name} has shape {array.shape}, expected {expected}")


def probe_shape(declared: Input) -> tuple[int, ...]:
    """A shape with batch 1 that the input accepts; a dynamic image size becomes the smallest sensible one."""
    if declared.layout == "tensor":
        return (1, *declared.shape)
    width, height = (side or math.ceil(64 / declared.multiple) * declared.multiple for side in declared.size)
    channels = 1 if declared.color == "gray" else 3
    return (1, channels, height, width) if declared.layout == "NCHW" else (1, height, width, channels)


def _fits(shape: tuple[int, ...], expected: list[int]) -> bool:
    return len(shape) == len(expected) and all(e in (-1, s) for s, e in zip(shape, expected, strict=True))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
