"""A file of PyTorch's old format, written here byte by byte, and files that try more than tensors."""

import collections
import importlib.util
import io
import os
import pickle
import struct
import sys
from typing import Any
from unittest import mock

import numpy as np
import pytest

from bundles.torch_file import MAGIC, read_state_dict


class Global:
    """Pickles as a reference to `module.name`, called with `arguments`."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.module, self.name, self.arguments = module, name, arguments


def python_pickler() -> Any:
    """As where it is not compiled: only this one can write names that are not importable."""
    spec = importlib.util.find_spec("pickle")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {"_pickle": None}):
        spec.loader.exec_module(module)
    return module.Pickler


class Writer(python_pickler()):  # type: ignore[misc]
    def persistent_id(self, obj: Any) -> Any:
        return obj[1:] if isinstance(obj, tuple) and obj[:1] == ("persistent",) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if not isinstance(obj, Global):
            super().save(obj, save_persistent_id)
            return
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        if obj.arguments:
            super().save(obj.arguments)
            self.write(pickle.REDUCE)


def torch_file(tensors: dict[str, Any], storages: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    parts: list[Any] = [MAGIC, 1001, {}, collections.OrderedDict(tensors), list(storages)]
    for part in parts:
        Writer(file, protocol=2).dump(part)
    for content in storages.values():
        file.write(struct.pack("<q", len(content) // 4) + content)
    return file.getvalue()


def tensor(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Global:
    storage = ("persistent", "storage", Global("torch", "FloatStorage"), "7", "cpu", 6)
    return Global("torch._utils", "_rebuild_tensor_v2", storage, offset, size, stride, False, collections.OrderedDict())


SIX = {"7": np.arange(6, dtype="<f4").tobytes()}


def test_tensors_are_views_with_their_own_offset_and_strides() -> None:
    read = read_state_dict(torch_file({"a": tensor(0, (2, 3), (3, 1)), "b": tensor(1, (2, 2), (1, 3))}, SIX))
    np.testing.assert_array_equal(read["a"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(read["b"], [[1, 4], [2, 5]])


@pytest.mark.parametrize(
    ("offset", "size", "stride"), [(0, (2, 4), (3, 1)), (5, (2,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,))]
)
def test_a_tensor_beyond_its_storage_is_refused(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    with pytest.raises(pickle.UnpicklingError, match="beyond its storage"):
        read_state_dict(torch_file({"a": tensor(offset, size, stride)}, SIX))


@pytest.mark.parametrize(
    ("module", "name"), [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("evil", "FloatStorage")]
)
def test_any_other_name_is_refused_and_never_called(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("code of the file ran"))
    with pytest.raises(pickle.UnpicklingError, match=f"{module}.{name} is not allowed"):
        read_state_dict(torch_file({"a": Global(module, name, "true")}, SIX))


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"not a PyTorch file"):
        read_state_dict(pickle.dumps(42))
