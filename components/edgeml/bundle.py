"""A model bundle: a folder with a model and `model.json`, read and verified. `edgeml.models` finds them.

The model is `model.onnx`, for the inferencer, the model updater and the training scripts: what one of them accepts is a
bundle for all of them. Or it is a `model.eim`, a program of Edge Impulse, whose manifest may say less, or be absent.
"""

import contextlib
import hashlib
import io
import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec

from edgeml import onnx_file
from edgeml.config import allowed
from edgeml.errors import BundleError, JsonError
from edgeml.files import read_regular
from edgeml.json_limits import loads
from edgeml.messages import ModelRef
from edgeml.text import lines
from edgeml.variants import Sha256 as Sha256
from edgeml.variants import Variant

if TYPE_CHECKING:
    import numpy as np

M = TypeVar("M", bound=msgspec.Struct)

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]
Task = Literal["classification", "detection", "anomaly", "regression"]
DType = Literal["float32", "float16", "float64", "uint8", "int8", "int32", "int64"]
Side = Annotated[int, msgspec.Meta(ge=0, le=1 << 14)]

VersionKey = tuple[tuple[int, ...], bool, tuple[tuple[int, int, str], ...]]  # numbers, is a release, identifiers
MAX_VERSION = 64  # characters
_VERSION = re.compile(r"v?(\d+(?:\.\d+){0,3})(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)

MODEL = "model.onnx"
MAX_MODEL_BYTES = (1 << 31) - 1  # of a file in protobuf's encoding
MAX_FILE_BYTES = 16 << 30  # of any other, such as the weights of a large model
MAX_MANIFEST_BYTES, MAX_LABELS_BYTES, MAX_ARRAY_BYTES = 4 << 20, 4 << 20, 64 << 20
MAX_FILES = 1000
PROBE_LIMIT = 4096  # the largest side, in pixels or elements, that a probe fills in for a dynamic dimension


class InputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """How an image or a vector becomes the input tensor: `(pixel * scale - mean) / std`, in `color` and `layout`.

    `size` is [width, height] in pixels; [0, 0] takes the frame's own size rounded up to a multiple of `multiple`.
    `shape` replaces layout and size for inputs that are no images, without the batch dimension.
    """

    name: str
    layout: Literal["NCHW", "NHWC", "tensor"] = "NCHW"
    size: tuple[Side, Side] = (0, 0)
    multiple: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    resize: Literal["stretch", "letterbox", "crop"] = "stretch"
    resize_shorter: Annotated[int, msgspec.Meta(ge=0, le=PROBE_LIMIT)] = 0
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=1)]], msgspec.Meta(max_length=8)] = []
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    scale: float = 1.0
    mean: list[float] = []
    std: list[float] = []
    dtype: DType = "float32"


class Extra(msgspec.Struct, frozen=True, kw_only=True):
    """A further input of the model, of `shape` (of one batch unless given): `values`, or numbers on the sample.

    `of` is `source` or `input` for their size in pixels, or `scale` for input / source; height before width, or as
    `order` says.
    """

    dtype: DType = "int64"
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=1)]], msgspec.Meta(max_length=8)] = []
    values: Annotated[list[float], msgspec.Meta(max_length=4096)] = []
    of: Literal["", "source", "input", "scale"] = ""
    order: Literal["hw", "wh"] = "hw"


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """Which decoder reads the outputs, with its parameters. A probe checks `shapes` (by output name, -1 is any).

    `name` chooses the output where a model has several that could be meant.
    """

    decoder: str
    name: str = ""
    parameters: dict[str, Any] = {}
    shapes: dict[str, list[int]] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`model.json`. `files` names further files of the bundle with their sha256; `labels` may lie in labels.txt.

    `extra_inputs` are those besides `input`, by name, for models that have several. `variants` are the model again, in
    files that are faster on some machines: what else is said here holds for them, too.
    """

    name: Name
    version: str
    task: Task
    sha256: Sha256
    input: InputTensor
    extra_inputs: dict[str, Extra] = {}
    output: Output
    labels: list[str] = []
    thresholds: dict[str, float | list[float]] = {}
    files: dict[str, Sha256] = {}
    variants: Annotated[list[Variant], msgspec.Meta(max_length=16)] = []
    license: str = ""
    source: str = ""

    def digest(self, name: str) -> str | None:
        """The sha256 of the model, of a variant or of a further file."""
        variants = {variant.file: variant.sha256 for variant in self.variants}
        return {**self.files, **variants, MODEL: self.sha256}.get(name)


class EimManifest(msgspec.Struct, frozen=True):
    """`model.json` beside a `model.eim`: what of it matters here. The file may be absent."""

    version: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `path` is the real folder: it stays valid when a `current` link is switched.

    `file` is the one to run, model.onnx or a variant's, on an accelerator where `provider` names one; `variant` and
    `why` say what that is, if there is a choice.
    """

    path: Path
    manifest: Manifest
    labels: tuple[str, ...]
    graph: onnx_file.Graph = field(default_factory=onnx_file.Graph)
    file: str = MODEL
    variant: str = ""
    why: str = ""
    provider: str = ""

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.manifest.name, self.manifest.version, self.variant, self.why)

    @property
    def model(self) -> Path:
        return self.path / self.file

    def using(self, file: str, why: str = "", provider: str = "") -> "Bundle":
        """This bundle, of which model.onnx or the variant `file` is to run, on `provider` or as configured."""
        name = {variant.file: variant.name for variant in self.manifest.variants}.get(file, "fp32")
        where = f" {provider.removesuffix('ExecutionProvider')}" if provider else ""
        return replace(self, file=file, variant=name + where, why=why, provider=provider)

    def read(self, name: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """A declared file, the very bytes that have its sha256: what was verified may have been replaced since.

        Raises BundleError.
        """
        return _verified(self.path, self.manifest, name, max_bytes)

    def inspected(self, model: bytes) -> onnx_file.Graph:
        """What the model says of itself. Raises BundleError if it is none, or has weights in undeclared files."""
        try:
            return _inspected(self.model, self.manifest, model)
        except onnx_file.NotOnnxError as error:
            raise BundleError(f"{self.model}: ONNX Runtime cannot load it, this is no ONNX file: {error}") from error

    def array(self, name: str) -> "np.ndarray[Any, Any]":
        """A .npy file of the bundle. Raises BundleError when it is missing, not declared, or holds objects."""
        import numpy as np

        content = self.read(name, MAX_ARRAY_BYTES)
        try:
            loaded = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # a header is parsed as Python, and a wrong one fails in many ways
            raise BundleError(f"{self.path / name}: {error}") from error
        if not isinstance(loaded, np.ndarray):
            raise BundleError(f"{self.path / name}: expected one array, found an archive of several")
        return loaded


def read_manifest(folder: Path) -> Manifest:
    """`model.json` of a bundle, not yet compared with the files. Raises BundleError."""
    return _read(folder, Manifest)


def load_eim(folder: Path) -> Path:
    """The `model.eim` in `folder`, compared with its sha256 where model.json names one. Raises BundleError."""
    file, expected = folder.resolve() / "model.eim", eim_manifest(folder).sha256
    if expected and (found := sha256(file)) != expected:
        raise BundleError(f"{file}: sha256 is {found}, model.json says {expected}")
    return file


def eim_manifest(folder: Path) -> EimManifest:
    """Raises BundleError."""
    return _read(folder, EimManifest) if (folder / "model.json").is_file() else EimManifest()


def _read(folder: Path, kind: type[M]) -> M:
    path = folder / "model.json"
    try:
        found = loads(read_regular(path, MAX_MANIFEST_BYTES), str(path), max_bytes=MAX_MANIFEST_BYTES)
        return msgspec.convert(found, kind)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    except JsonError as error:
        raise BundleError(str(error)) from error
    except msgspec.MsgspecError as error:
        raise BundleError(f"{path}: {error}{allowed(kind, found, str(error))}") from error


def load(folder: Path) -> Bundle:
    """The bundle in `folder`, every file compared with its sha256. Raises BundleError naming file and reason."""
    folder = folder.resolve()
    manifest = read_manifest(folder)
    version_key(manifest.version)
    if len(manifest.files) > MAX_FILES:
        raise BundleError(f"{folder}: {len(manifest.files)} files in model.json, {MAX_FILES} are allowed")
    model, graph = _verified(folder, manifest, MODEL, MAX_MODEL_BYTES), onnx_file.Graph()
    with contextlib.suppress(onnx_file.NotOnnxError):  # whoever opens it says so: to hash it, it may be anything
        graph = _inspected(folder / MODEL, manifest, model)
    del model
    variants = [(variant.file, variant.sha256) for variant in manifest.variants]
    names = [MODEL, *manifest.files, *(name for name, _ in variants)]
    if twice := next((name for name, _ in variants if names.count(name) > 1), None):
        raise BundleError(f"{folder}: model.json names {twice} twice, as a variant and otherwise")
    for name, expected in (*manifest.files.items(), *variants):
        path = _inside(folder, name)
        if (found := sha256(path)) != expected:
            raise BundleError(f"{path}: sha256 is {found}, model.json says {expected}")
    return Bundle(folder, manifest, _labels(folder, manifest), graph)


def _inside(folder: Path, name: str) -> Path:
    """The path of a file that model.json names. Raises BundleError if it lies elsewhere."""
    path = folder / name
    try:
        if "\0" in name or path.resolve().parent != folder:
            raise BundleError(f"{folder}: file {name!r} of model.json lies outside the bundle")
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a surrogate
        raise BundleError(f"{folder}: {name!r} is no file name: {error}") from error
    return path


def _verified(folder: Path, manifest: Manifest, name: str, max_bytes: int) -> bytes:
    """The content of a declared file, whose sha256 was compared. Raises BundleError."""
    expected = manifest.digest(name)
    if expected is None:
        raise BundleError(f"{folder}: {name} is not declared in model.json (files)")
    path = _inside(folder, name)
    try:
        content = read_regular(path, max_bytes)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise BundleError(f"{path}: sha256 is {found}, model.json says {expected}")
    return content


def _inspected(path: Path, manifest: Manifest, model: bytes) -> onnx_file.Graph:
    graph = onnx_file.read(model)
    if undeclared := sorted(graph.external - manifest.files.keys()):
        raise BundleError(f"{path}: weights in {undeclared[0]!r}, which is not declared in model.json (files)")
    return graph


def _labels(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    if manifest.labels or "labels.txt" not in manifest.files:
        return tuple(manifest.labels)
    content = _verified(folder, manifest, "labels.txt", MAX_LABELS_BYTES)
    try:
        found = [line.strip() for line in lines(content)]
    except ValueError as error:
        raise BundleError(f"{folder / 'labels.txt'}: {error}") from error
    while found and not found[-1]:
        del found[-1]
    return tuple(found)


def sha256(path: Path) -> str:
    """Hex digest of a regular file. Raises BundleError when it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path}: not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise BundleError(f"{path}: more than {MAX_FILE_BYTES} bytes")
            digest = hashlib.sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
            return digest.hexdigest()
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
