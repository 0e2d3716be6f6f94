"""Runs a model for another process, with NumPy and ONNX Runtime alone: under emulation there is little else.

Archives come on stdin, each after its length: the model first, then inputs. Archives of outputs go to stdout. Neither
it nor the model need be a file there.
"""

import io
import os
import sys
from typing import IO, Any

import numpy as np

MOST = 1 << 30  # bytes of an archive


def read(stream: IO[bytes]) -> "dict[str, np.ndarray[Any, Any]] | None":
    """The next arrays by name, or None at the end."""
    head = stream.read(8)
    size = int.from_bytes(head, "big")
    if len(head) < 8 or size > MOST:
        return None
    with np.load(io.BytesIO(stream.read(size)), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def write(stream: IO[bytes], arrays: "dict[str, np.ndarray[Any, Any]]") -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    stream.write(len(buffer.getvalue()).to_bytes(8, "big") + buffer.getvalue())
    stream.flush()


def main() -> None:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = read(sys.stdin.buffer)
    assert model is not None  # noqa: S101  (whoever starts this sends one)
    session = onnxruntime.InferenceSession(model["model"].tobytes(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    while (inputs := read(sys.stdin.buffer)) is not None:
        outputs = session.run(names, {name[1:]: array for name, array in inputs.items()})
        write(sys.stdout.buffer, {f"o{place}": np.asarray(output) for place, output in enumerate(outputs)})


if __name__ == "__main__":
    main()
