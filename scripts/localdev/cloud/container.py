"""A model server with the contract of SageMaker's containers: GET /ping and POST /invocations.

`python -m localdev.cloud.container MODEL.onnx` serves an ONNX model with one float input of shape [N, features] and
prints its port. It takes text/csv (a row per line), application/json ({"instances": [[...], ...]}) and
application/x-npy, and answers text/csv, or {"predictions": [...]} when the caller accepts application/json.
"""

import argparse
import io
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_BODY_BYTES = 25 * 1024 * 1024


class BadInput(Exception):  # noqa: N818  (becomes a 400 or 415)
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Model:
    """Rows in, the model's first output flattened per row out."""

    def __init__(self, path: Path) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # looked at by the import
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # more would spin between rows, which takes longer than a row does
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (self._input,) = self._session.get_inputs()

    def predict(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Raises BadInput for a row of the wrong length."""
        features = self._input.shape[-1]
        if isinstance(features, int) and rows.shape[-1] != features:
            raise BadInput(400, f"the model takes {features} features, found {rows.shape[-1]}")
        answer = self._session.run(None, {self._input.name: rows})[0]
        return np.asarray(answer).reshape(len(rows), -1)


def parsed(body: bytes, content_type: str) -> npt.NDArray[np.float32]:
    """Rows [N, features]. Raises BadInput."""
    kind = content_type.partition(";")[0].strip()
    try:
        match kind:
            case "text/csv":
                rows = [[float(field) for field in line.split(",")] for line in body.decode().splitlines() if line]
                array = np.array(rows, np.float32)
            case "application/json":
                array = np.array(json.loads(body)["instances"], np.float32)
            case "application/x-npy":
                array = np.load(io.BytesIO(body), allow_pickle=False).astype(np.float32)
            case _:
                raise BadInput(415, f"content type {kind} is not supported")
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(400, f"{kind}: {error}") from error
    if array.ndim != 2 or not array.size:
        raise BadInput(400, f"expected rows of numbers, found shape {array.shape}")
    return array


class Handler(BaseHTTPRequestHandler):
    model: Model

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/ping" else 404, "text/plain", b"")

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        if self.path != "/invocations" or size > MAX_BODY_BYTES:
            self._answer(404 if self.path != "/invocations" else 413, "text/plain", b"")
            return
        try:
            rows = self.model.predict(parsed(self.rfile.read(size), self.headers.get("Content-Type", "")))
        except BadInput as error:
            self._answer(error.status, "text/plain", str(error).encode())
            return
        if self.headers.get("Accept") == "application/json":
            self._answer(200, "application/json", json.dumps({"predictions": rows.tolist()}).encode())
        else:
            lines = [",".join(str(value) for value in row) for row in rows]
            self._answer(200, "text/csv", "\n".join(lines).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass  # a line per request would drown what matters

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    Handler.model = Model(arguments.model)
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
