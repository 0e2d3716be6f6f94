"""What the inferencer's tests share: a recording Ipc, tiny bundles, an HTTP endpoint that misbehaves on demand."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeml import models
from edgeml.component import Context
from edgeml.errors import NotFoundError
from edgeml.health import Health
from edgeml.ipc import Handler, Ipc, Subscription
from edgeml.messages import SampleRef
from edgeml.s3 import Uploader
from inferencer.assembly import Running
from inferencer.backends.onnx import OnnxBackend
from inferencer.config import Pipeline
from inferencer.parts import Place
from inferencer.sample import Sample
from inferencer.sources.camera import CameraSource


@dataclass
class Recorder:
    """Ipc that keeps what is published."""

    secrets: dict[str, str] = field(default_factory=dict)
    max_iot_bytes: int = 7000
    local: list[tuple[str, Any]] = field(default_factory=list)
    iot: list[tuple[str, Any]] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, *, wait: float = 0.0) -> None:
        self.local.append((topic, json.loads(payload)))

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        self.iot.append((topic, json.loads(payload)))

    def secret(self, secret_id: str) -> str:
        if secret_id not in self.secrets:
            raise NotFoundError(secret_id)
        return self.secrets[secret_id]

    def subscribe(self, topic: str, handler: Handler) -> Subscription:
        return Subscription(lambda received: None, handler)

    def subscribe_iot(self, topic: str, handler: Handler, *, qos: int = 1) -> Subscription:
        return Subscription(lambda received: None, handler)

    def configuration(self, component: str = "") -> dict[str, Any]:
        return {}

    def on_configuration(self, changed: Callable[[], None]) -> None: ...

    def dropped(self) -> int:
        return 0

    def ready(self) -> None: ...

    def close(self) -> None: ...

    def on(self, topic: str) -> list[Any]:
        return [payload for where, payload in list(self.local) if where == topic]


def make_context(work: Path, ipc: Ipc | None = None) -> Context:
    work.mkdir(parents=True, exist_ok=True)
    return Context(
        ipc=ipc or Recorder(), health=Health("edgeml.Inferencer", "1.0.0"), work=work, root=work, thing_name="bench"
    )


def mean_model(path: Path, size: int | str = 8, dtype: int = TensorProto.FLOAT, bias: float = 0.0) -> None:
    """[1, 3, size, size] -> the mean of each channel plus `bias` as [1, 3], whatever the size."""
    nodes = [
        helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("Add", ["means", "bias"], ["scores"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
        helper.make_tensor("bias", TensorProto.FLOAT, [1], [bias]),
    ]
    save(path, nodes, constants, ("input", dtype, [1, 3, size, size]), ("scores", [1, 3]))


def sum_model(path: Path, count: int = 3, bias: float = 0.0) -> None:
    """[n, count] -> the sum of each row plus `bias` as [n, 1]."""
    nodes = [
        helper.make_node("ReduceSum", ["input", "axes"], ["sums"], keepdims=1),
        helper.make_node("Add", ["sums", "bias"], ["value"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        helper.make_tensor("bias", TensorProto.FLOAT, [1], [bias]),
    ]
    save(path, nodes, constants, ("input", TensorProto.FLOAT, ["n", count]), ("value", ["n", 1]))


def save(path: Path, nodes: Any, constants: Any, given: tuple[str, int, list[Any]], output: tuple[str, Any]) -> None:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


IMAGE_INPUT = {"name": "input", "layout": "NCHW", "size": [8, 8], "color": "bgr"}
VECTOR_INPUT = {"name": "input", "layout": "tensor", "shape": [3]}


def classifier(folder: Path, version: str = "1.0.0", *, bias: float = 0.0, **changes: Any) -> Path:
    """A bundle whose labels blue, green and red score the softmax of the image's mean colour."""
    folder.mkdir(parents=True, exist_ok=True)
    mean_model(folder / "model.onnx", bias=bias)
    declared = {"task": "classification", "input": IMAGE_INPUT, "output": {"decoder": "softmax"}}
    return describe(folder, version, {**declared, "labels": ["blue", "green", "red"], **changes})


def regressor(folder: Path, version: str = "1.0.0", *, bias: float = 0.0, **changes: Any) -> Path:
    """A bundle that adds three numbers and `bias`."""
    folder.mkdir(parents=True, exist_ok=True)
    sum_model(folder / "model.onnx", bias=bias)
    output = {"decoder": "regression", "parameters": {"features": ["a", "b", "c"]}}
    return describe(folder, version, {"task": "regression", "input": VECTOR_INPUT, "output": output, **changes})


def detects(folder: Path) -> Path:
    """A bundle of `detector`."""
    bundle = classifier(
        folder,
        task="detection",
        output={"decoder": "yolo", "parameters": {"layout": "v8"}},
        input={"name": "input", "layout": "NCHW", "size": [8, 8], "color": "bgr"},
        labels=["thing"],
    )
    detector(bundle)
    return bundle


def detector(bundle: Path) -> None:
    """Replace the model: whatever the picture, one box over its middle: [1, 5, 1] in the layout of YOLO v8."""
    nodes = [
        helper.make_node("ReduceMax", ["input", "axes"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "box"], ["boxes"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [4], [0, 1, 2, 3]),
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
        helper.make_tensor("box", TensorProto.FLOAT, [1, 5, 1], [4.0, 4.0, 6.0, 6.0, 0.9]),
    ]
    save(bundle / "model.onnx", nodes, constants, ("input", TensorProto.FLOAT, [1, 3, 8, 8]), ("boxes", [1, 5, 1]))
    declared = json.loads((bundle / "model.json").read_text())
    del declared["sha256"], declared["name"]
    describe(bundle, declared.pop("version"), declared)


def describe(folder: Path, version: str, declared: dict[str, Any]) -> Path:
    digest = models.sha256(folder / "model.onnx")
    (folder / "model.json").write_text(
        json.dumps({"name": "Tiny", "version": version, "sha256": digest, **declared}), encoding="utf-8"
    )
    return folder


def picture(blue: int = 0, green: int = 0, red: int = 0, size: tuple[int, int] = (16, 16)) -> Any:
    """A picture of one colour, BGR."""
    return np.full((*size, 3), (blue, green, red), np.uint8)


def sample(data: Any, **fields: Any) -> Sample:
    return Sample(data, fields.pop("source", SampleRef()), time.monotonic_ns(), "bgr24", **fields)


def pipeline(backend: Any, source: Any, **settings: Any) -> Pipeline:
    return Pipeline(source=source, backend=backend, **settings)


def place(context: Context, configured: Pipeline | None = None, **fields: Any) -> Place:
    """Where a part of the pipeline `p` works that has no uploads, no outbox and no writer unless they are given."""
    source, backend = CameraSource(camera="c"), OnnxBackend(model="Tiny")
    given = {"outbox": None, "uploader": no_uploads, "writer": no_uploads, **fields}
    configured = configured or pipeline(backend, source)
    return Place(name="p", prefix="pipelines.p", pipeline=configured, context=context, rings=context.work, **given)


def no_uploads() -> Uploader:
    raise AssertionError("nothing is to be uploaded")


def deliver(running: Running, topic: str, payload: bytes) -> None:
    """A message on a local topic, to all of the pipeline's parts that listen to it."""
    handlers = [handler for wanted, handler in running.topics if wanted == topic]
    assert handlers, f"nobody listens to {topic}"
    for handler in handlers:
        handler(topic, payload)


@dataclass
class Answer:
    status: int = 200
    body: bytes = b"{}"
    delay_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


class Endpoint:
    """An HTTP server; `behave` decides each answer, `requests` are (path, headers, body)."""

    def __init__(self, pem: Path | None = None) -> None:
        self.pem = pem
        self.behave: Callable[[bytes], Answer] = lambda body: Answer()
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                owner.requests.append((self.path, dict(self.headers), body))
                answer = owner.behave(body)
                owner.released.wait(answer.delay_s)
                try:
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)
                except OSError:
                    self.close_connection = True  # the client has gone: that is what some tests are about

            do_GET = do_PUT = do_POST  # noqa: N815  (http.server's names)

            def log_message(self, format: str, *arguments: Any) -> None: ...

        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if pem is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if pem is None else 'https'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def endpoint(pem: Path | None = None) -> Iterator[Endpoint]:
    """With `pem`, certificate and key, it speaks TLS."""
    server = Endpoint(pem)
    try:
        yield server
    finally:
        server.close()
