"""A model on another processor: a Python there runs it, which is started by a command and talked to by pipes."""

import select
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundles import emulated

ANSWER_S = 300.0  # of one run: emulation takes a hundred times as long


class ElsewhereError(Exception):
    """The command does not answer, or not as it should."""


class Elsewhere:
    """In place of an ONNX Runtime session: `session` says what there is, the command computes."""

    def __init__(self, command: str, model: bytes, session: Any) -> None:
        self._session, self._command, self._model = session, command, model
        self._names = [output.name for output in session.get_outputs()]
        code = Path(emulated.__file__).read_text(encoding="utf-8")
        words = [*shlex.split(command), "-c", code]
        self._child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )

    def __enter__(self) -> "Elsewhere":
        try:
            self._say({"model": np.frombuffer(self._model, np.uint8)})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def get_modelmeta(self) -> Any:
        return self._session.get_modelmeta()

    def run(self, names: Sequence[str] | None, given: Mapping[str, Any]) -> list[Any]:
        """As of a session. Raises ElsewhereError."""
        self._say({f"i{name}": np.asarray(array) for name, array in given.items()})
        outputs = self._heard()
        by_name = {name: outputs[f"o{place}"] for place, name in enumerate(self._names)}
        return [by_name[name] for name in names or self._names]

    def _say(self, arrays: dict[str, Any]) -> None:
        assert self._child.stdin is not None  # noqa: S101  (it is a pipe)
        try:
            emulated.write(self._child.stdin, arrays)
        except OSError as error:
            raise ElsewhereError(f"{self._command}: ended with {self._child.wait(10)}") from error

    def _heard(self) -> dict[str, Any]:
        stream: Any = _Patient(self._child, time.monotonic() + ANSWER_S)
        outputs = emulated.read(stream)
        if outputs is None:
            raise ElsewhereError(f"{self._command}: no answer in {ANSWER_S:g} s, or it ended ({self._child.poll()})")
        return outputs


class _Patient:
    """Reads from a child until a deadline."""

    def __init__(self, child: "subprocess.Popen[bytes]", deadline: float) -> None:
        self._stream, self._deadline = child.stdout, deadline

    def read(self, size: int) -> bytes:
        assert self._stream is not None  # noqa: S101  (it is a pipe)
        data = b""
        while len(data) < size:
            ready, _, _ = select.select([self._stream], [], [], max(0.0, self._deadline - time.monotonic()))
            piece = self._stream.read(min(size - len(data), 1 << 20)) if ready else b""
            if not piece:
                return b""
            data += piece
        return data
