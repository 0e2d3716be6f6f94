"""The Inferencer's side of the protocol with a helper (EXTERNAL.md): what ONNX Runtime's session is for a bundle."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import pwd
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np

from edgeml.bundle import Bundle, DType, Manifest
from edgeml.errors import BackendError, BundleError, JsonError
from edgeml.json_limits import loads
from edgeml.onnx_session import TYPES, check_input

VERSION = 1
MAX_MESSAGE = 1 << 17  # bytes
CONNECT_S = 2.0
ALIGNED = 64  # bytes: where tensors begin
UNSEEN = "0" * 64  # a sha256 for the manifest of a model whose file this process never sees

Array = np.ndarray[Any, Any]
Message = TypeVar("Message", "Hello", "Answer")
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """`shape` with the batch of one. Where `scale` is not 0, value = (number - zero_point) * scale."""

    shape: Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=1 << 28)], ...], msgspec.Meta(max_length=8)]
    dtype: DType = "float32"
    scale: float = 0.0
    zero_point: int = 0

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Hello(msgspec.Struct, frozen=True):
    """What a helper says first. `manifest` is a bundle's model.json without sha256 and files."""

    edgeml: Literal[1]
    manifest: dict[str, Any]
    inputs: Annotated[dict[Name, Tensor], msgspec.Meta(min_length=1, max_length=16)]
    outputs: Annotated[dict[Name, Tensor], msgspec.Meta(min_length=1, max_length=64)]


class Answer(msgspec.Struct, frozen=True):
    """`done` or `error` is the number of the inference."""

    done: int = 0
    error: int = 0
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


@dataclass(frozen=True)
class Value:
    """An input or output as ONNX Runtime describes it."""

    name: str
    type: str
    shape: Sequence[int]


@dataclass(frozen=True)
class Meta:
    custom_metadata_map: Mapping[str, str]


class ExternalSession:
    """One connection. Whatever a helper does wrong ends it: `closed` is true then, and each call a BackendError."""

    def __init__(self, path: str, user: str, timeout_s: float, max_bytes: int) -> None:
        """Raises BackendError where no helper answers in time, BundleError for a model that cannot be used."""
        self._path, self._timeout_s = path, timeout_s
        self._number = 0
        self.closed = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.settimeout(CONNECT_S)
            self._socket.connect(path)
            self._check_user(user)
            self._hello = self._read(Hello, time.monotonic() + timeout_s)
            self.bundle = self._described()
            self._place(max_bytes)
            check_input(self, self.bundle)
        except OSError as error:
            self.close()
            raise BackendError(f"{path}: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    def get_inputs(self) -> list[Value]:
        return [Value(name, _type(tensor.dtype), tensor.shape) for name, tensor in self._hello.inputs.items()]

    def get_outputs(self) -> list[Value]:
        """Quantized outputs come as float32."""
        return [
            Value(name, _type("float32" if tensor.scale else tensor.dtype), tensor.shape)
            for name, tensor in self._hello.outputs.items()
        ]

    def get_modelmeta(self) -> Meta:
        return Meta({})

    def buffer(self, name: str) -> Array:
        """The shared memory of an input: a tensor that is made there needs no copy."""
        return self._inputs[name]

    def run(self, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs [batch of one, ...] by name. They are valid until the next call. Raises BackendError."""
        if self.closed:
            raise BackendError(f"{self._path}: the helper is gone")
        for name, value in feeds.items():
            if value is not self._inputs[name]:
                np.copyto(self._inputs[name], value, casting="no")
        self._number += 1
        deadline = time.monotonic() + self._timeout_s
        try:
            self._send({"infer": self._number})
            answer = self._read(Answer, deadline)
        except BundleError as error:  # it speaks another language now
            self.close()
            raise BackendError(str(error)) from error
        except OSError as error:
            self.close()
            raise BackendError(f"{self._path}: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise
        if answer.error == self._number:
            raise BackendError(f"{self._path}: {answer.reason or 'the helper failed without a reason'}")
        if answer.done != self._number:
            self.close()
            raise BackendError(f"{self._path}: expected the answer to {self._number}, the helper gave {answer}")
        return [self._value(name) for name in names]

    def close(self) -> None:
        self.closed = True
        self._socket.close()

    def _value(self, name: str) -> Array:
        tensor, value = self._hello.outputs[name], self._outputs[name]
        if not tensor.scale:
            return value
        return (value.astype(np.float32) - np.float32(tensor.zero_point)) * np.float32(tensor.scale)

    def _check_user(self, wanted: str) -> None:
        """Nothing is said to, and nothing taken from, a socket that somebody else has put there."""
        _, uid, _ = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        try:
            allowed = {pwd.getpwnam(wanted).pw_uid} if wanted else {os.geteuid(), 0}
        except KeyError as error:  # there was one when the configuration was checked
            raise BackendError(f"{self._path}: there is no user {wanted!r} any more") from error
        if uid not in allowed:
            expected = wanted or "the component's own user, or root"
            raise BackendError(f"{self._path}: belongs to the user {uid}, expected {expected}")

    def _described(self) -> Bundle:
        try:
            manifest = msgspec.convert({**self._hello.manifest, "sha256": UNSEEN, "files": {}}, Manifest)
        except msgspec.ValidationError as error:
            raise BundleError(f"{self._path}: manifest of the helper: {error}") from error
        unknown = sorted(set(manifest.output.shapes) - set(self._hello.outputs))
        if unknown:
            raise BundleError(f"{self._path}: manifest of the helper: no output {unknown[0]!r}")
        return Bundle(Path(self._path), manifest, tuple(manifest.labels))

    def _place(self, max_bytes: int) -> None:
        """Share memory that holds all tensors, and that neither side can shrink below the other."""
        tensors = [*self._hello.inputs.values(), *self._hello.outputs.values()]
        begins, size = [], 0
        for tensor in tensors:
            begins.append(size)
            size += (tensor.bytes + ALIGNED - 1) // ALIGNED * ALIGNED
        if size > max_bytes:
            raise BundleError(f"{self._path}: the model needs {size} bytes for its tensors, max_bytes is {max_bytes}")
        descriptor = os.memfd_create("edgeml-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            memory = mmap.mmap(descriptor, size)
            views = [
                np.frombuffer(memory, tensor.dtype, math.prod(tensor.shape), begin).reshape(tensor.shape)
                for tensor, begin in zip(tensors, begins, strict=True)
            ]
            count = len(self._hello.inputs)
            self._inputs = dict(zip(self._hello.inputs, views[:count], strict=True))
            self._outputs = dict(zip(self._hello.outputs, views[count:], strict=True))
            told = {
                "memory": size,
                "inputs": dict(zip(self._hello.inputs, begins[:count], strict=True)),
                "outputs": dict(zip(self._hello.outputs, begins[count:], strict=True)),
            }
            self._socket.settimeout(CONNECT_S)
            socket.send_fds(self._socket, [msgspec.json.encode(told)], [descriptor])
        finally:
            os.close(descriptor)

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.settimeout(CONNECT_S)
        self._socket.send(msgspec.json.encode(message))

    def _read(self, kind: type[Message], deadline: float) -> Message:
        """The next message. Raises OSError, BackendError where none comes, BundleError for one that is none."""
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data, _, flags, _ = self._socket.recvmsg(MAX_MESSAGE)
        except TimeoutError as error:
            raise BackendError(f"{self._path}: no answer of the helper within {self._timeout_s} s") from error
        if not data:
            raise BackendError(f"{self._path}: the helper has gone")
        if flags & socket.MSG_TRUNC:
            raise BundleError(f"{self._path}: a message of the helper has more than {MAX_MESSAGE} bytes")
        try:
            return msgspec.convert(loads(data, self._path, max_bytes=MAX_MESSAGE), kind)
        except (JsonError, msgspec.ValidationError) as error:
            raise BundleError(f"{self._path}: not a message of a helper: {error}") from error


def _type(dtype: str) -> str:
    return f"tensor({TYPES.get(dtype, dtype)})"
