"""One .eim model: started or attached to, asked, and taken down without a trace."""

import contextlib
import logging
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_impulse_runner import shared
from edge_impulse_runner.errors import EimGone, EimRefused
from edge_impulse_runner.process import ModelProcess
from edge_impulse_runner.protocol import FreeformResult, Hello, Inference, Reply, SharedMemory
from edgeml import json_limits
from edgeml.edge_impulse.results import Result
from edgeml.errors import JsonError
from edgeml.json_limits import too_deep
from edgeml.log import kv
from edgeml.pace import Ration

log = logging.getLogger(__name__)

T = TypeVar("T")

START_TIMEOUT_S, CLASSIFY_TIMEOUT_S, WARM_UP_TIMEOUT_S = 30.0, 10.0, 3600.0
MAX_REPLY_BYTES = 32 << 20  # the model's own limit
_READ_BYTES = 1 << 18
_POLL_S = 0.01


class Eim:
    """The model at `path`: an executable to run, its socket in `folder`, or the Unix socket of one that runs already.

    `open`, then ask from one thread; `close` may be called from any thread at any time and wakes the one that waits.
    `hello` is what the model said of itself, `parameters` its model_parameters word for word. All raise EimRefused
    when the model says no, and EimGone when it died, hangs or speaks nonsense: then only a new Eim can help.
    """

    hello: Hello
    parameters: dict[str, Any]

    def __init__(
        self,
        path: Path,
        *,
        start_timeout_s: float = START_TIMEOUT_S,
        classify_timeout_s: float = CLASSIFY_TIMEOUT_S,
        folder: Path | None = None,
        starts: Ration | None = None,
    ) -> None:
        self._folder, self._starts = folder or Path(tempfile.gettempdir()), starts
        self._path, self._start_timeout_s, self._timeout_s = path, start_timeout_s, classify_timeout_s
        self._socket = socket.socket(socket.AF_UNIX)
        self._buffer = bytearray(_READ_BYTES)
        self._process: ModelProcess | None = None
        self._blocks: list[SharedMemory] = []
        self._input: shared.Block | None = None
        self._outputs: list[shared.Block] = []
        self._ids = 0
        self._lock = threading.Lock()
        self._closed = False

    def open(self) -> "Eim":
        """Start or reach the model and say hello; what fails is closed."""
        deadline = time.monotonic() + self._start_timeout_s
        try:
            self._connect(self._started(), deadline)
            self._ids = 1
            reply = self._exchange(b'{"hello":1,"id":1}', max(0.1, deadline - time.monotonic()))
            _accept(_decoded(reply, Reply), 1)
            self.hello = _decoded(reply, Hello)
            self.parameters = _plain(reply)["model_parameters"]
            self._blocks = _named(
                b for b in (self.hello.features_shm, *self.hello.freeform_output_shm) if b is not None
            )
            if self._process is not None:
                self._process.remember(self._blocks)
            self._map()
        except BaseException:
            self.close()
            raise
        return self

    @property
    def pid(self) -> int:
        """Of the model's process; 0 when someone else started it."""
        return self._process.pid if self._process is not None else 0

    @property
    def uses_shared_memory(self) -> bool:
        return self._input is not None

    def classify(self, features: NDArray[np.float32]) -> Inference:
        """One whole window of `input_features_count` numbers."""
        return self._classify("classify", features, self._timeout_s)

    def classify_continuous(self, features: NDArray[np.float32]) -> Inference:
        """The next `slice_size` numbers of a stream; scores are 0 until a whole window has come."""
        return self._classify("classify_continuous", features, self._timeout_s)

    def warm_up(self, timeout_s: float = WARM_UP_TIMEOUT_S) -> None:
        """The first inference, on zeros, of an engine that builds its kernels then."""
        zeros = np.zeros(self.hello.model_parameters.input_features_count, dtype=np.float32)
        self._classify("classify", zeros, timeout_s)

    def set_threshold(self, block: int, values: dict[str, float]) -> None:
        """Change thresholds of one learn block, as `hello.model_parameters.thresholds` names them."""
        self._ask({"set_threshold": {"id": block, **values}}, self._timeout_s)

    def close(self) -> None:
        """End the model, by force if need be, and remove its socket and its shared memory."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with contextlib.suppress(OSError):  # never connected, or the model went first
                self._socket.shutdown(socket.SHUT_RDWR)  # unlike close, this wakes a thread that waits for a reply
            self._socket.close()
            if self._process is not None:
                self._process.stop()
                for block in self._blocks:
                    with contextlib.suppress(OSError):  # the model's own folder of that name
                        shared.remove_block(block.name)
            self._unmap()

    def _unmap(self) -> None:
        blocks = [*self._outputs, *([self._input] if self._input else [])]
        self._input, self._outputs = None, []
        for block in blocks:
            block.close()

    def __enter__(self) -> "Eim":
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> Path:
        if self._path.is_socket():
            return self._path
        with self._lock:
            if self._closed:
                raise EimGone("the model was closed before it was started")
            self._process = ModelProcess(self._path, self._folder, self._starts)
            return self._process.address

    def _connect(self, address: Path, deadline: float) -> None:
        while True:
            try:
                self._socket.settimeout(max(0.1, deadline - time.monotonic()))
                self._socket.connect(str(address))
                return
            except OSError as error:  # not there yet, or there and not listening yet
                if self._process is not None and self._process.ended():
                    raise EimGone(f"the model ended at start: {self._process.obituary()}") from error
                if self._closed or time.monotonic() > deadline:
                    raise EimGone(f"the model does not listen on {address}: {error}") from error
            time.sleep(_POLL_S)

    def _map(self) -> None:
        if self.hello.features_shm_error:
            log.warning("no shared memory, inputs go as JSON %s", kv(reason=self.hello.features_shm_error))
        if self.hello.features_shm is None:
            return
        try:
            for block in self.hello.freeform_output_shm:
                self._outputs.append(shared.Block(block))
            self._input = shared.Block(self.hello.features_shm)
        except (OSError, ValueError) as error:
            self._unmap()
            log.warning("shared memory not usable, inputs go as JSON %s", kv(reason=error))

    def _classify(self, verb: str, features: NDArray[np.float32], timeout_s: float) -> Inference:
        request: dict[str, Any]
        memory = self._input  # close() in another thread lets go of it
        if memory is None or features.size > memory.size:
            request = {verb: features.tolist()}
        else:
            with _translated():
                memory.write(features)
            request = {f"{verb}_shm": {"elements": features.size}}
        reply = self._ask(request, timeout_s)
        return Inference(result=self._result(reply.result), timing=reply.timing, info=reply.info)

    def _result(self, raw: msgspec.Raw) -> Result:
        if self.hello.model_parameters.model_type == "freeform":
            freeform = _decoded(raw, FreeformResult).freeform
            if isinstance(freeform, str):
                if not self._outputs:
                    raise EimGone("the model's outputs lie in shared memory that cannot be read")
                with _translated():
                    freeform = [block.read() for block in self._outputs]
            return Result(freeform=freeform)
        result = _decoded(raw, Result)
        return msgspec.structs.replace(result, is_regression=True) if self.hello.is_regression else result

    def _ask(self, request: dict[str, Any], timeout_s: float) -> Reply:
        self._ids += 1
        request["id"] = self._ids
        reply = _decoded(self._exchange(_encoder.encode(request), timeout_s), Reply)
        _accept(reply, self._ids)
        return reply

    def _exchange(self, request: bytes, timeout_s: float) -> bytearray:
        """One request and its reply, which ends with a NUL byte. After any failure the stream is out of step."""
        deadline = time.monotonic() + timeout_s
        reply = bytearray()
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(request)
            while not reply.endswith(b"\0"):
                if (left := deadline - time.monotonic()) <= 0:  # also of a model that always has one byte more
                    raise TimeoutError
                self._socket.settimeout(left)
                count = self._socket.recv_into(self._buffer)
                if count == 0:
                    raise EimGone(f"the model closed the connection: {self._last_words()}")
                reply += memoryview(self._buffer)[:count]
                if len(reply) > MAX_REPLY_BYTES:
                    raise EimGone(f"the model's reply is above {MAX_REPLY_BYTES} bytes")
        except TimeoutError as error:
            raise EimGone(f"the model hangs: no reply in {timeout_s:g} s") from error
        except EimGone:
            raise
        except Exception as error:  # the stream is out of step, whatever it was
            words = str(error) or type(error).__name__
            raise EimGone(f"the model is gone: {words}; {self._last_words()}") from error
        del reply[-1:]
        return reply

    def _last_words(self) -> str:
        return self._process.obituary() if self._process is not None else "it was started by someone else"


_encoder = msgspec.json.Encoder()
_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind, strict=False) for kind in (Reply, Hello, Result, FreeformResult)
}


def _decoded(reply: bytearray | msgspec.Raw, kind: type[T]) -> T:
    try:
        if too_deep(bytes(reply)):
            raise ValueError("nested too deeply")
        decoded: T = _decoders[kind].decode(reply)
    except Exception as error:  # msgspec's own, and what it lets through
        raise EimGone(f"the model's reply is not understood: {error}: {bytes(reply)[:200]!r}") from error
    return decoded


def _plain(reply: bytearray) -> Any:
    try:
        return json_limits.loads(bytes(reply), "the model's hello", max_bytes=MAX_REPLY_BYTES)
    except JsonError as error:
        raise EimGone(str(error)) from error


def _named(blocks: Iterable[SharedMemory]) -> list[SharedMemory]:
    """`blocks`, whose names can be such. Raises EimGone."""
    found = list(blocks)
    try:
        for block in found:
            shared.path(block.name)
    except ValueError as error:
        raise EimGone(f"the model's hello is not understood: {error}") from error
    return found


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise EimGone(f"the model's shared memory is gone: {str(error) or type(error).__name__}") from error


def _accept(reply: Reply, identity: int) -> None:
    if not reply.success:
        raise EimRefused(f"the model refused: {reply.error or 'it gave no reason'}")
    if reply.id != identity:
        raise EimGone(f"the model answered message {reply.id} instead of {identity}")
