"""What tests of model updates share: tiny bundles, artifacts, job documents, and a file server with faults."""

import base64
import contextlib
import hashlib
import importlib.util
import io
import json
import os
import socket
import ssl
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any, Self
from unittest import mock

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper

from support import ROOT

MODEL = "Tiny"


def tiny_model(offset: float = 0.0, *, padding: int = 0) -> bytes:
    """`y = x + offset` on [batch, 4], with `padding` random floats that make the file larger."""
    constants = [helper.make_tensor("c", TensorProto.FLOAT, [1], [offset])]
    if padding:
        noise = np.random.default_rng(1).random(padding, dtype=np.float32)
        constants.append(helper.make_tensor("noise", TensorProto.FLOAT, [padding], noise.tobytes(), raw=True))
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def colour_model() -> bytes:
    """Mean of each colour: [batch, 3, 8, 8] -> [batch, 3]. As fast as a model of images can be."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["image"], ["scores"], axes=[2, 3], keepdims=0)],
        "colour",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def colour_files(version: str, decoder: str = "softmax") -> dict[str, bytes]:
    """The files of a bundle that edgeml.Inferencer can run, if it knows the decoder."""
    return bundle_files(
        version,
        colour_model(),
        name="Colour",
        task="classification",
        input={"name": "image", "size": [8, 8], "scale": 1 / 255},
        output={"decoder": decoder, "shapes": {"scores": [-1, 3]}},
        labels=["red", "green", "blue"],
    )


def bundle_files(version: str, model: bytes | None = None, *, name: str = MODEL, **changes: Any) -> dict[str, bytes]:
    """The files of a bundle of the tiny model."""
    model = tiny_model(float(len(version))) if model is None else model
    manifest = {
        "name": name,
        "version": version,
        "task": "anomaly",
        "sha256": hashlib.sha256(model).hexdigest(),
        "input": {"name": "x", "layout": "tensor", "shape": [4]},
        "output": {"decoder": "anomaly", "shapes": {"y": [-1, 4]}},
        **changes,
    }
    return {"model.onnx": model, "model.json": json.dumps(manifest).encode()}


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def trained(files: dict[str, bytes]) -> bytes:
    """What training leaves of a bundle's files: model.tar.gz."""
    draft = {key: value for key, value in json.loads(files["model.json"]).items() if key not in ("sha256", "files")}
    others = {name: content for name, content in files.items() if name != "model.json"}
    return tarred({**others, "bundle.json": json.dumps(draft).encode()})


def document(artifact: bytes, version: str, url: str, *, name: str = MODEL, **changes: Any) -> dict[str, Any]:
    """The job document that offers `artifact`."""
    return {
        "operation": "update_model",
        "version": "1.0.0",
        "model_name": name,
        "model_version": version,
        "onnxruntime_version": "1.23.0",
        "deployment_artifact_path": url,
        "sha256": hashlib.sha256(artifact).hexdigest(),
        "size": len(artifact),
        **changes,
    }


class Signer:
    """A key pair; `public` is what the configuration takes."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        raw = self.private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = base64.b64encode(raw).decode()

    @property
    def pem(self) -> str:
        """The private key as the exporter's secret holds it."""
        coding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self.private.private_bytes(*coding).decode()

    def signed(self, job: dict[str, Any]) -> dict[str, Any]:
        lines = ["edgeml-model", job["model_name"], job["model_version"], job["sha256"], str(job["size"]), ""]
        return {**job, "signature": self._sign(lines)}

    def signed_v2(self, job: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """With both signatures, the second one over `thing_group` and `allow_downgrade` of `fields`, too."""
        job = {**self.signed(job), **fields}
        lines = ["edgeml-model-2", *(f"{key}={job[key]}" for key in ("model_name", "model_version", "sha256", "size"))]
        lines += [f"thing_group={job.get('thing_group', '')}"]
        lines += [f"allow_downgrade={str(job.get('allow_downgrade', False)).lower()}", ""]
        return {**job, "signature_v2": self._sign(lines)}

    def _sign(self, lines: list[str]) -> str:
        return base64.b64encode(self.private.sign("\n".join(lines).encode())).decode()


@dataclass
class FileServer:
    """`with FileServer() as server: url = server.add(content)`. Ranges as S3 has them, and faults on demand."""

    requests: list[tuple[str, str]] = field(default_factory=list)  # path, Range header
    cut_after: list[int] = field(default_factory=list)  # the next answers end after so many bytes
    statuses: list[int] = field(default_factory=list)  # the next requests get these instead of content
    ranges: bool = True
    expired: set[str] = field(default_factory=set)  # queries of URLs that are not honoured any more
    location: str = ""  # of redirects
    tls: ssl.SSLContext | None = None
    garbled: list[int] = field(default_factory=list)  # the next answers are no TLS any more after so many bytes
    pause: threading.Event | None = None  # the answer waits in its middle until this is set
    reached: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def add(self, content: bytes, path: str = "") -> str:
        path = path or f"/{hashlib.sha256(content).hexdigest()[:12]}"
        self._files[path] = content
        return f"{self.url}{path}"

    def __enter__(self) -> Self:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, _, query = handler.path.partition("?")
        wanted = handler.headers.get("Range", "")
        self.requests.append((path, wanted))
        status = 403 if query in self.expired else self.statuses.pop(0) if self.statuses else 0
        if status:
            handler.send_response(status)
            if self.location:
                handler.send_header("Location", self.location)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        content = self._files[path]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if wanted and self.ranges else 200)
        if wanted and self.ranges:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        end = start + self.cut_after.pop(0) if self.cut_after else len(content)
        if self.pause is not None:
            middle = (start + end) // 2
            handler.wfile.write(content[start:middle])
            handler.wfile.flush()
            self.reached.set()
            self.pause.wait(20)
            start = middle
        if self.garbled:
            handler.wfile.write(content[start : start + self.garbled.pop(0)])
            socket.socket.send(handler.connection, b"\x17\x03\x03\x00\x20" + bytes(32))  # past the TLS layer
            handler.close_connection = True
            return
        with contextlib.suppress(OSError):  # the client was killed, as some tests want it
            handler.wfile.write(content[start:end])
        handler.close_connection = True


def load_handler(name: str, environment: dict[str, str]) -> ModuleType:
    """A fresh import of cloud/functions/<name>/app.py, which reads its settings when it is imported."""
    path = ROOT / "cloud" / "functions" / name / "app.py"
    spec = importlib.util.spec_from_file_location(f"handler_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(os.environ, {"POWERTOOLS_SERVICE_NAME": name, **environment}):
        spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class LambdaContext:
    """What Powertools' logger asks of the context."""

    function_name: str = "function"
    memory_limit_in_mb: int = 256
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:function"
    aws_request_id: str = "request"
