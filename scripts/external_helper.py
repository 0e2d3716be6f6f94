"""A helper that runs a model for edgeml.Inferencer's backend `external`: here any bundle, by ONNX Runtime.

    python external_helper.py BUNDLE SOCKET

It is an example to be copied: it needs NumPy and the runtime alone, and nothing of this suite. For another runtime
replace `Model`: `inputs`, `outputs`, `place` and `run` are all that it takes, which EXTERNAL.md describes.
"""

import contextlib
import fcntl
import json
import mmap
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np

MAX_MESSAGE = 1 << 17
MEMORY_S = 5.0  # for the other side to say where tensors lie
Tensor = dict[str, Any]  # shape and dtype
Arrays = dict[str, "np.ndarray[Any, Any]"]
DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}


class Model:
    """The model of a bundle. A vendor's runtime is opened here, and its buffers are filled and read in `run`."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        self.manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if not self.manifest.get("labels") and (folder / "labels.txt").exists():
            self.manifest["labels"] = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            (folder / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = {value.name: self._tensor(value) for value in self._session.get_inputs()}
        zeros = {name: np.zeros(tensor["shape"], tensor["dtype"]) for name, tensor in self.inputs.items()}
        self._names = [value.name for value in self._session.get_outputs()]
        values = self._session.run(self._names, zeros)
        self.outputs = {
            name: {"shape": value.shape, "dtype": str(value.dtype)}
            for name, value in zip(self._names, values, strict=True)
        }

    def _tensor(self, value: Any) -> Tensor:
        """An input; what its graph leaves open is the size that model.json gives."""
        declared = self.manifest["input"]
        width, height = declared.get("size", (0, 0))
        sides = (height, width) if declared.get("layout", "NCHW") == "NCHW" else (width, height)
        open_ones = [1, *(side for side in sides if side)] if value.name == declared["name"] else [1]
        free = iter(open_ones)
        shape = [side if isinstance(side, int) and side > 0 else next(free) for side in value.shape]
        kind = value.type
        return {"shape": shape, "dtype": DTYPES.get(kind, kind[len("tensor(") : -1])}

    def place(self, inputs: Arrays, outputs: Arrays) -> None:
        """Arrays by name, in shared memory. Bound once here: nothing is copied then."""
        self._binding = self._session.io_binding()
        for arrays, bind in ((inputs, self._binding.bind_input), (outputs, self._binding.bind_output)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def run(self) -> None:
        """Read the inputs, write the outputs."""
        self._session.run_with_iobinding(self._binding)


def serve(model: Model, path: Path) -> None:
    """Answer one Inferencer after the other on the socket, for ever."""
    with contextlib.suppress(FileNotFoundError):  # what a former run left; never anything but a socket
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(1)
        print(f"listening {path}", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    answer(model, connection)
                except Exception as error:  # noqa: BLE001  (whoever comes next is answered, whatever this one said)
                    print(f"connection ended: {error!r}", flush=True)


def answer(model: Model, connection: socket.socket) -> None:
    """One connection: say what the model is, take the memory, run what is asked for until the other side goes."""
    hello = {"edgeml": 1, "manifest": model.manifest, "inputs": model.inputs, "outputs": model.outputs}
    connection.settimeout(MEMORY_S)
    connection.send(json.dumps(hello).encode())
    data, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE, 1)
    if not data or len(descriptors) != 1:
        return
    connection.settimeout(None)
    try:
        if not fcntl.fcntl(descriptors[0], fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise ValueError("expected memory that cannot be made smaller")
        placed = json.loads(data)
        memory = mmap.mmap(descriptors[0], placed["memory"])
    finally:
        os.close(descriptors[0])
    inputs, outputs = (
        {
            name: np.ndarray(tensors[name]["shape"], tensors[name]["dtype"], memory, begin)
            for name, begin in placed[kind].items()
        }
        for kind, tensors in (("inputs", model.inputs), ("outputs", model.outputs))
    )
    model.place(inputs, outputs)
    while data := connection.recv(MAX_MESSAGE):
        number = json.loads(data)["infer"]
        try:
            model.run()
        except Exception as error:  # noqa: BLE001  (of any runtime: this input's fault, not the connection's)
            connection.send(json.dumps({"error": number, "reason": str(error)[:1000]}).encode())
        else:
            connection.send(json.dumps({"done": number}).encode())


if __name__ == "__main__":
    serve(Model(Path(sys.argv[1])), Path(sys.argv[2]))
