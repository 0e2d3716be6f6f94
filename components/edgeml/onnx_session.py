"""ONNX Runtime sessions on model bundles: of the bytes that were hashed, without telemetry, tried on zeros."""

import ctypes
import math
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeml.bundle import MAX_MODEL_BYTES, Bundle, InputTensor, Manifest
from edgeml.errors import BundleError, ProviderError

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime as ort

    Array = np.ndarray[Any, Any]

MAX_TENSOR = 1 << 28  # numbers of an input: 1 GiB of float32
_SAME_AS_REQUESTED = 1  # of OrtArenaCfg: no room in advance, which doubles what is needed
_arena: list[bool] = []  # whether this process has one, once that was tried
_arena_lock = threading.Lock()
_gone: list[bool] = []  # sessions that have ended since the arena gave back what it could
TYPES = {"float32": "float", "float64": "double"}  # ours, where ONNX Runtime calls them otherwise


def runtime() -> Any:
    """The module onnxruntime, which nobody else imports.

    Its builds write usage data below the home folder and may send it, which devices must not; the opt-out is looked
    at by the import.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _shares_arena() -> bool:
    """Whether all sessions take their tensors from one place, so that only one of them needs room at a time."""
    onnxruntime = runtime()
    with _arena_lock:
        if not _arena:
            whole = dict.fromkeys(("initial_chunk_size_bytes", "max_dead_bytes_per_chunk"), -1)
            settings = {"max_mem": 0, "arena_extend_strategy": _SAME_AS_REQUESTED, **whole}
            kind, memory = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
            try:
                cpu = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, memory)
                onnxruntime.create_and_register_allocator(cpu, onnxruntime.OrtArenaCfg(settings))
                _arena.append(True)
            except Exception:  # noqa: BLE001  (a build that has none: each session has its own)
                _arena.append(False)
        return _arena[0]


def shrinking() -> "ort.RunOptions | None":
    """Options for the next run, after which what only sessions that have ended needed is given back; mostly none."""
    if not _gone:
        return None
    _gone.clear()
    options = runtime().RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def give_back() -> None:
    """Give memory that was needed to load a model back to the system: the C library keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def open_session(
    bundle: Bundle,
    *,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    threads: int = 0,
    optimization: Literal["all", "extended", "basic", "off"] = "all",
) -> "ort.InferenceSession":
    """An ONNX Runtime session on the bundle's `file`. `threads` 0 lets ONNX Runtime choose.

    Raises ProviderError for a provider that this build of ONNX Runtime lacks or that does not start, BundleError for a
    model it cannot load or that does not take the input which model.json describes.
    """
    onnxruntime = runtime()
    present = onnxruntime.get_available_providers()
    for provider in providers:
        if provider not in present:
            raise ProviderError(f"{provider} is not in this ONNX Runtime, present are {', '.join(present)}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread pool steals the core that the camera and the publisher need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # A third of the memory, at the same speed: patterns keep a block for each shape that was ever seen.
    options.enable_mem_pattern = False
    if _shares_arena():
        options.add_session_config_entry("session.use_env_allocators", "1")
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
        "all": levels.ORT_ENABLE_ALL,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "basic": levels.ORT_ENABLE_BASIC,
        "off": levels.ORT_DISABLE_ALL,
    }[optimization]
    # Between `load` and now anybody may have changed the files: these bytes are hashed again, and are the ones loaded.
    model = bundle.read(bundle.file, MAX_MODEL_BYTES)
    weights = {name: bundle.read(name) for name in sorted(bundle.inspected(model).external)}
    if weights and not hasattr(options, "add_external_initializers_from_files_in_memory"):
        there = onnxruntime.__version__
        raise BundleError(f"{bundle.model}: weights in files of their own need ONNX Runtime 1.24, this is {there}")
    try:
        if weights:
            options.add_external_initializers_from_files_in_memory(
                list(weights), list(weights.values()), [len(content) for content in weights.values()]
            )
        # It would go on with the CPU, and tell nobody but stdout.
        session = onnxruntime.InferenceSession(model, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        for provider in providers:  # TensorRT's fails so where its libraries are missing
            if missing := _missing(provider):
                raise ProviderError(f"{provider} does not start: {missing}") from error
        raise BundleError(f"{bundle.model}: ONNX Runtime cannot load it: {first_line(error)}") from error
    # It keeps the bytes for a second start, which nobody makes: as much memory as the weights themselves.
    vars(session).update({name: None for name, value in vars(session).items() if value is model})
    running = session.get_providers()
    for provider in providers:
        if provider not in running:
            missing = _missing(provider) or "the log has what ONNX Runtime says of it"
            raise ProviderError(f"{provider} does not start: {missing}")
    check_input(session, bundle)
    if _shares_arena():
        weakref.finalize(session, _gone.append, True).atexit = False
    return session


def _missing(provider: str) -> str:
    """Which library is, as ONNX Runtime tells its log alone; empty if none is, as where a driver does not fit."""
    name = provider.removesuffix("ExecutionProvider").lower()
    library = Path(runtime().__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
    try:
        if library.exists():
            ctypes.CDLL(str(library))
    except OSError as error:
        if "undefined symbol" not in str(error):  # those of ONNX Runtime itself, which nothing has loaded for us
            return str(error)
    return ""


def probe(session: "ort.InferenceSession", bundle: Bundle) -> None:
    """Run the model once on zeros and compare its outputs with what model.json declares. Raises BundleError."""
    import numpy as np

    declared = bundle.manifest.input
    tensor = np.zeros(probe_shape(declared), dtype=declared.dtype)
    try:
        outputs = session.run(None, {declared.name: tensor, **extras(bundle.manifest, _size(declared, tensor.shape))})
    except Exception as error:  # as above
        raise BundleError(f"{bundle.model}: does not run on {tensor.shape}: {first_line(error)}") from error
    for found, output in zip(session.get_outputs(), outputs, strict=True):
        array = np.asarray(output) if found.type.startswith("tensor") else np.empty(0, object)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BundleError(f"{bundle.model}: output {found.name} is not finite on a zero input")
        expected = bundle.manifest.output.shapes.get(found.name)
        if expected is not None and not _fits(array.shape, expected):
            raise BundleError(f"{bundle.model}: output {found.name} has shape {array.shape}, expected {expected}")


def probe_shape(declared: InputTensor) -> tuple[int, ...]:
    """A shape with batch 1 that the input accepts; a dynamic image size becomes the smallest sensible one.

    Raises BundleError for one that no memory holds.
    """
    if declared.layout == "tensor":
        shape: tuple[int, ...] = (1, *declared.shape)
    else:
        width, height = (side or math.ceil(64 / declared.multiple) * declared.multiple for side in declared.size)
        channels = 1 if declared.color == "gray" else 3
        shape = (1, channels, height, width) if declared.layout == "NCHW" else (1, height, width, channels)
    if math.prod(shape) > MAX_TENSOR:
        raise BundleError(f"input {declared.name}: {math.prod(shape)} numbers, {MAX_TENSOR} are allowed")
    return shape


def _size(declared: InputTensor, shape: Sequence[int]) -> tuple[int, int]:
    """Width and height of an image tensor; zeros of a vector."""
    if declared.layout == "tensor":
        return 0, 0
    return (shape[3], shape[2]) if declared.layout == "NCHW" else (shape[2], shape[1])


def extras(manifest: Manifest, size: tuple[int, int], source: tuple[int, int] | None = None) -> "dict[str, Array]":
    """What the further inputs get for one sample: sizes (width, height) of input and source in pixels.

    Raises BundleError for values that do not fit their shape or type.
    """
    import numpy as np

    filled = {}
    source = source or size
    for name, extra in manifest.extra_inputs.items():
        given = {"source": source, "input": size, "scale": [a / (b or 1) for a, b in zip(size, source, strict=True)]}
        numbers = list(given[extra.of]) if extra.of else extra.values
        ordered = numbers[::-1] if extra.of and extra.order == "hw" else numbers
        try:
            array = np.array(ordered).astype(extra.dtype)
            if "int" in extra.dtype and not np.array_equal(array, ordered):
                raise BundleError(f"extra_inputs.{name}: expected what {extra.dtype} holds, found {ordered}")
            filled[name] = array.reshape(extra.shape or (1, len(ordered)))
        except (ValueError, OverflowError) as error:
            raise BundleError(f"extra_inputs.{name}: {error}") from error
    return filled


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


def check_input(session: "ort.InferenceSession", bundle: Bundle) -> None:
    """Compare a session's inputs with model.json. Raises BundleError saying what is there and what was expected."""
    declared, inputs = bundle.manifest.input, session.get_inputs()
    names = [tensor.name for tensor in inputs]
    if declared.name not in names:
        raise BundleError(f"{bundle.model}: no input {declared.name!r}, it has {', '.join(names)}")
    shape = probe_shape(declared)
    given = extras(bundle.manifest, _size(declared, shape))
    if empty := [name for name in names if name != declared.name and name not in given]:
        raise BundleError(
            f"{bundle.model}: it has {len(inputs)} inputs, {', '.join(names)}; "
            f"extra_inputs.{empty[0]} in model.json has to say what that gets"
        )
    if unknown := [name for name in given if name not in names]:
        raise BundleError(f"{bundle.model}: no input {unknown[0]!r} (extra_inputs), it has {', '.join(names)}")
    for found in inputs:
        extra = found.name != declared.name
        dtype = bundle.manifest.extra_inputs[found.name].dtype if extra else declared.dtype
        ours = given[found.name].shape if extra else shape
        there = f"input {found.name} is {found.type} {_text(found.shape)}"
        expected = f"tensor({TYPES.get(dtype, dtype)})"
        if found.type != expected:
            raise BundleError(f"{bundle.model}: {there}, model.json says {dtype} ({expected})")
        if found.shape and not _takes(found.shape, ours):  # none: the model does not say
            layout = "" if extra or declared.layout == "tensor" else f" {declared.layout}"
            hint = "" if extra else _hint(found.shape, shape, declared.layout)
            raise BundleError(f"{bundle.model}: does not run on {ours}{layout}, as model.json says: {there}{hint}")


def _takes(found: Sequence[object], shape: tuple[int, ...]) -> bool:
    """Whether a declared shape, of numbers, names and None, holds for ours."""
    return len(found) == len(shape) and all(
        not isinstance(side, int) or side < 1 or side == ours for side, ours in zip(found, shape, strict=True)
    )


def _hint(found: Sequence[object], shape: tuple[int, ...], layout: str) -> str:
    if isinstance(found[0], int) and found[0] > 1:
        return f", a batch of {found[0]} where samples come one at a time"
    channels = {"NCHW": 1, "NHWC": 3}
    other = {"NCHW": "NHWC", "NHWC": "NCHW"}.get(layout, "")
    if other and len(found) == len(shape) and found[channels[other]] == shape[channels[layout]]:
        return f", which is {other}"
    return ""


def _text(shape: Sequence[object]) -> str:
    return f"[{', '.join(str(side) if isinstance(side, int) else '?' for side in shape)}]"


def _fits(shape: tuple[int, ...], expected: list[int]) -> bool:
    return len(shape) == len(expected) and all(e in (-1, s) for s, e in zip(shape, expected, strict=True))
