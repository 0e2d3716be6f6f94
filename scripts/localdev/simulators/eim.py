"""A stand-in for an Edge Impulse .eim model: the whole protocol, every kind of result, every way to misbehave.

`write_launcher` makes an executable file that behaves as a real .eim does when it is started with a socket path,
`stdin` or `--print-info`. Only the standard library is used and nothing of this project, so it starts at once and
shares no mistake with the client it tests. Protocol and texts follow edgeimpulse/example-standalone-inferencing-linux,
source/eim.cpp.
"""

import array
import itertools
import json
import mmap
import os
import shlex
import signal
import socket
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "classification", "regression", "kmeans", "gmm", "box", "fomo", "tracking", "grid", "freeform", "audio", "motion"
]
Shm = Literal["offered", "old", "failed", "missing"]
Misbehaviour = Literal[
    "", "exits_at_start", "never_listens", "silent_hello", "slow", "hangs", "dies", "splits", "garbage", "wrong_id"
]

BANNER = "Edge Impulse Linux impulse runner"
BOXES = [
    {"label": "face", "value": 0.91, "x": 1, "y": 2, "width": 3, "height": 4},
    {"label": "face", "value": 0.61, "x": 5, "y": 6, "width": 7, "height": 8},
]
THRESHOLD_BLOCK = 3


class Options(NamedTuple):
    """What the stand-in is. `shm`: offered, not known to an `old` model, `failed` at hello, or named but `missing`.

    `misbehaves` begins with classify number `after` (from 0). `results` are given in turn, in place of the kind's own.
    `record` is a file that gets one JSON line for each request. One that `outlives_client` does
    not end when its client does, as a hung one. `tag` begins the names of its shared memory, by which a
    test knows its own.
    """

    kind: Kind = "classification"
    width: int = 96
    height: int = 96
    channels: int = 3
    resize_mode: str = "squash"
    labels: Sequence[str] = ("face", "background")
    results: Sequence[dict[str, Any]] = ()
    shm: Shm = "offered"
    misbehaves: Misbehaviour = ""
    after: int = 0
    delay_s: float = 0.0
    frequency: float = 16000.0
    features: int = 16000
    slice_size: int = 4000
    deploy_version: int = 7
    project: str = "Stand-in"
    gpu: bool = False
    record: str = ""
    outlives_client: bool = False
    tag: str = ""


def write_launcher(path: Path, options: Options | None = None) -> Path:
    """Write an executable that runs the stand-in with these options; its path."""
    text = json.dumps((options or Options())._asdict())
    path.write_text(_LAUNCHER.format(python=shlex.quote(sys.executable), scripts=str(_SCRIPTS), text=text))
    path.chmod(0o755)
    return path


# One file that is a shell script and a Python program: a shebang cannot name an interpreter whose path holds blanks.
# It is started very often: a module is compiled once, and what this one imports is loaded quickly.
_LAUNCHER = """#!/bin/sh
''':'
exec {python} -I -S -B "$0" "$@"
'''
import sys
sys.path.append({scripts!r})
from localdev.simulators import eim
sys.exit(eim.main([{text!r}, *sys.argv[1:]]))
"""
_SCRIPTS = Path(__file__).resolve().parents[2]


class Refused(Exception):  # noqa: N818  (becomes an error reply)
    pass


class Model:
    """What the model knows and answers, free of transport."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._sensor = {"audio": 1, "motion": 2, "kmeans": 2, "gmm": 2, "regression": 2}.get(options.kind, 3)
        image = self._sensor == 3
        self.elements = options.width * options.height if image else options.features
        self._greeted = False
        self._heard = 0
        self._min_score = 0.5
        self.answered = 0
        self._own = itertools.cycle(options.results or [self._result()])
        self.memory: mmap.mmap | None = None
        self._shm_name = ""

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        identity = message.get("id")
        if not isinstance(identity, int):
            return {"error": "Missing 'id' field in message", "success": False}
        try:
            body = self._answer(message)
        except Refused as error:
            body = {"error": str(error), "success": False}
        return {"id": identity, "success": True, **body}

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        if "hello" in message:
            if self._greeted:
                raise Refused("Invalid message 'hello', already initialized")
            if message["hello"] != 1:
                raise Refused("Invalid value for 'hello', only 1 supported")
            self._greeted = True
            return self._hello()
        if not self._greeted:
            raise Refused("Invalid message, should initialize first")
        for verb, size in (("classify", self.elements), ("classify_continuous", self._slice())):
            if verb in message:
                return self._classify(verb, self._from_json(verb, message[verb], size), shm=False)
            if f"{verb}_shm" in message:
                return self._classify(verb, self._from_memory(message[f"{verb}_shm"], size), shm=True)
        if "set_threshold" in message:
            return self._set_threshold(message["set_threshold"])
        raise Refused("Failed to handle message")

    def _from_json(self, verb: str, values: Any, size: int) -> bytes:
        if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
            raise Refused("Failed to parse classify array, should contain all numbers")
        if len(values) != size:
            raise Refused(f"Invalid number of features in '{verb}', expected {size} but got {len(values)}")
        return array.array("f", values).tobytes() if self._options.record else b""

    def _from_memory(self, request: Any, size: int) -> bytes:
        if self.memory is None:
            raise Refused("Cannot use 'classify_data_shm', cannot find shm input tensor with ix=0")
        elements = request.get("elements") if isinstance(request, dict) else None
        if not isinstance(elements, int):
            raise Refused("Missing 'elements' in 'classify_data_shm'")
        if elements != size:
            raise Refused(f"Invalid value for 'classify_data_shm.elements', expected {size}, but got {elements}")
        return self.memory[: size * 4] if self._options.record else b""

    def _classify(self, verb: str, features: bytes, *, shm: bool) -> dict[str, Any]:
        result = self._shaped(next(self._own), shm=shm)
        if verb == "classify_continuous":
            self._heard += self._slice()
            if self._heard < self.elements and "classification" in result:
                result = {"classification": dict.fromkeys(result["classification"], 0.0)}
        self._record(verb, shm, features)
        timing = {"dsp": 2, "classification": 14, "anomaly": 0, "json": 0, "stdin": 0, "msg_handler": 16}
        return {"result": result, "timing": timing}

    def _shaped(self, result: dict[str, Any], *, shm: bool) -> dict[str, Any]:
        if "bounding_boxes" in result:
            return {**result, "bounding_boxes": [b for b in result["bounding_boxes"] if b["value"] >= self._min_score]}
        if "freeform" in result and shm and self.memory is not None:
            for values, block in zip(result["freeform"], self._outputs, strict=True):
                block[:] = array.array("f", values).tobytes()
            return {"freeform": "shm"}
        return result

    def _set_threshold(self, request: Any) -> dict[str, Any]:
        block = request.get("id") if isinstance(request, dict) else None
        if not isinstance(block, int | float):
            raise Refused("set_threshold should have a numeric field 'id'")
        if block != THRESHOLD_BLOCK:
            raise Refused(f"set_threshold: cannot find learn block with id {block}")
        for key, value in request.items():
            if key in ("id", "type"):
                continue
            if not isinstance(value, int | float):
                raise Refused(f"set_threshold, value for '{key}' should be numeric")
            if key != "min_score":
                raise Refused(f"set_threshold, setting key '{key}' failed with error -1")
            self._min_score = value
        return {}

    def _slice(self) -> int:
        return self._options.slice_size if self._sensor == 1 else self.elements

    def _hello(self) -> dict[str, Any]:
        options, engine = (
            self._options,
            {"engine_type": 2, "properties": ["gpu_delegates"] if self._options.gpu else []},
        )
        project = {"id": 1, "owner": "Owner", "name": options.project, "deploy_version": options.deploy_version}
        reply: dict[str, Any] = {"model_parameters": self._parameters(), "project": project}
        if options.shm == "old":  # from before 2025: no shared memory, no engine, no resize mode
            for key in ("image_resize_mode", "model_type", "thresholds"):
                if options.kind == "classification" or key != "model_type":
                    reply["model_parameters"].pop(key, None)
            return reply
        reply["inferencing_engine"] = engine
        if options.shm == "failed":
            reply["features_shm_error"] = "shm_open failed, errno 13"
        else:
            reply["features_shm"] = self._block(self._shm_name or "/shm-000000000000", self.elements)
        if options.kind == "freeform" and options.shm == "offered":
            reply["freeform_output_shm"] = [
                {"index": index, **self._block(self._output_name(index), len(values))}
                for index, values in enumerate(self._freeform())
            ]
        return reply

    def _block(self, name: str, elements: int) -> dict[str, Any]:
        return {"name": name, "size_bytes": elements * 4, "type": "float32", "elements": elements}

    def _parameters(self) -> dict[str, Any]:
        options = self._options
        image, audio = self._sensor == 3, self._sensor == 1
        boxes = options.kind in ("box", "fomo", "tracking")
        labels = ["value"] if options.kind == "regression" else options.labels
        kinds = {"box": "object_detection", "tracking": "object_detection", "fomo": "constrained_object_detection"}
        return {
            "sensor": self._sensor,
            "input_features_count": self.elements,
            "frequency": 0.0 if image else options.frequency,
            "interval_ms": 1.0 if image else 1000.0 / options.frequency,
            "axis_count": 1 if image or audio else 3,
            "image_input_width": options.width if image else 0,
            "image_input_height": options.height if image else 0,
            "image_input_frames": 1 if image else 0,
            "image_channel_count": options.channels if image else 0,
            "image_resize_mode": options.resize_mode if image else "none",
            "label_count": len(labels),
            "labels": labels,
            "has_anomaly": {"kmeans": 1, "gmm": 2, "grid": 3}.get(options.kind, 0),
            "has_object_tracking": options.kind == "tracking",
            "model_type": "freeform" if options.kind == "freeform" else kinds.get(options.kind, "classification"),
            "slice_size": self._slice(),
            "use_continuous_mode": audio,
            "has_performance_calibration": False,
            "inferencing_engine": 2,
            "thresholds": [{"id": THRESHOLD_BLOCK, "type": "object_detection", "min_score": 0.5}] if boxes else [],
        }

    def _result(self) -> dict[str, Any]:
        options = self._options
        scores = [0.9, *[0.1 / max(1, len(options.labels) - 1)] * (len(options.labels) - 1)]
        classification = dict(zip(options.labels, scores, strict=True))
        boxes = [{**box, "label": options.labels[0]} for box in BOXES]
        cell = {"label": "anomaly", "value": 5.5, "x": 0, "y": 0, "width": 8, "height": 8}
        match options.kind:
            case "regression":
                return {"classification": {"value": 12.5}}
            case "kmeans" | "gmm":
                return {"classification": classification, "anomaly": -0.25}
            case "box" | "fomo":
                return {"bounding_boxes": boxes}
            case "tracking":
                return {"bounding_boxes": boxes, "object_tracking": [{"object_id": 4, **boxes[0]}]}
            case "grid":
                return {"visual_anomaly_grid": [cell], "visual_anomaly_max": 5.5, "visual_anomaly_mean": 2.25}
            case "freeform":
                return {"freeform": self._freeform()}
            case _:
                return {"classification": classification}

    def _freeform(self) -> list[list[float]]:
        return [[1.0, 2.0, 3.0], [0.5]]

    def _record(self, verb: str, shm: bool, features: bytes) -> None:
        if self._options.record:
            head = array.array("f", features[:32]).tolist()
            line = {"verb": verb, "shm": shm, "count": len(features) // 4, "head": head, "crc": zlib.crc32(features)}
            with Path(self._options.record).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    # Shared memory, as shm_open does it: files of mode 0600 in /dev/shm.

    def open_memory(self) -> None:
        if self._options.shm != "offered":
            return
        self._shm_name = f"/shm-{(self._options.tag + os.urandom(6).hex())[:12]}"
        self.memory = _create(self._shm_name, self.elements)
        self._outputs = []
        if self._options.kind == "freeform":
            self._outputs = [_create(self._output_name(i), len(v)) for i, v in enumerate(self._freeform())]

    def close_memory(self) -> None:
        if self.memory is not None:
            for name in (self._shm_name, *(self._output_name(index) for index in range(len(self._outputs)))):
                _shm_path(name).unlink(missing_ok=True)

    def _output_name(self, index: int) -> str:
        return f"{self._shm_name}-{index}"


def _shm_path(name: str) -> Path:
    return Path("/dev/shm") / name.lstrip("/")  # noqa: S108  (where shm_open puts them)


def _create(name: str, elements: int) -> mmap.mmap:
    descriptor = os.open(_shm_path(name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.ftruncate(descriptor, elements * 4)
    memory = mmap.mmap(descriptor, elements * 4)
    os.close(descriptor)
    return memory


def messages(read: Callable[[], bytes]) -> Iterator[dict[str, Any]]:
    """JSON objects of a stream, with or without anything between them."""
    decoder, text = json.JSONDecoder(), ""
    while chunk := read():
        text += chunk.decode()
        while (start := text.find("{")) >= 0:
            try:
                message, end = decoder.raw_decode(text, start)
            except ValueError:
                break  # not whole yet
            text = text[end:]
            yield message


def _encoded(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def _misbehave(options: Options, reply: bytes, connection: socket.socket) -> bytes:
    """What is sent in place of `reply`; some misbehaviour does not come back."""
    match options.misbehaves:
        case "slow":
            time.sleep(options.delay_s)
        case "hangs":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                signal.pause()
        case "dies":
            print("terminate called after throwing an instance of 'std::bad_alloc'", flush=True)
            os.abort()
        case "splits":
            for index in range(len(reply)):
                connection.sendall(reply[index : index + 1])
            return b""
        case "garbage":
            return b"Segmentation fault (not really)\n\0"
        case "wrong_id":
            return b'{"id":999999,"success":true,"result":{}}\n\0'
    return reply


def serve_socket(options: Options, model: Model, path: str) -> None:
    """One connection, ever, as the real one does; returns when the client has gone."""
    if options.misbehaves == "never_listens":
        signal.pause()
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(10)
        print(f"{BANNER} - listening for JSON messages on socket '{path}'", flush=True)
        print(f"Waiting for connection on {path}...", flush=True)
        connection, _ = listener.accept()
        print("Connected", flush=True)
        with connection:
            for message in messages(lambda: connection.recv(1 << 20)):
                if options.misbehaves == "silent_hello" and "hello" in message:
                    continue
                reply = _encoded(model.answer(message)) + b"\0"
                if any(key.startswith("classify") for key in message):
                    if model.answered >= options.after:
                        reply = _misbehave(options, reply, connection)
                    model.answered += 1
                connection.sendall(reply)
            while options.outlives_client:
                signal.pause()


def main(argv: list[str]) -> int:
    options = Options(**json.loads(argv[0]))
    if len(argv) < 2:
        print("Requires one parameter (either: '--print-info', 'stdin' or the name of a socket)")
        return 1
    if options.misbehaves == "exits_at_start":
        print("error while loading shared libraries: libstand-in.so.1: cannot open shared object file", file=sys.stderr)
        return 127
    model = Model(options)

    def leave(number: int, frame: object) -> None:
        model.close_memory()
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    model.open_memory()
    try:
        if argv[1] == "--print-info":
            print(f"{BANNER} - printing model metadata")
            print(json.dumps(model.answer({"hello": 1, "id": 1}), indent=4))
        elif argv[1] == "stdin":
            for message in messages(lambda: os.read(0, 1 << 20)):
                os.write(1, _encoded(model.answer(message)))
        else:
            serve_socket(options, model, argv[1])
    except (BrokenPipeError, ConnectionResetError):
        pass  # the client went in the middle of an answer
    finally:
        model.close_memory()
    return 0
