"""An ONNX Runtime that has a GPU's provider: the CPU computes in its place, and slower where it is itself asked."""

import time
from dataclasses import dataclass, field
from typing import Any

import onnxruntime
import pytest

from edgeml.variants import CPU
from variants_support import AZURE, CUDA

WORK_S = 0.005  # that the CPU takes longer


@dataclass
class Gpu:
    """Its provider `starts`, or does not, and `works` then. `asked` are the providers of sessions."""

    starts: bool = True
    works: bool = True
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def put_into(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def asked(session: Any) -> tuple[str, ...]:
            return getattr(session, "wanted", (CPU,))  # that of an earlier test, which is shared

        begin, run, gpu = onnxruntime.InferenceSession.__init__, onnxruntime.InferenceSession.run, self

        def init(session: Any, model: Any, options: Any = None, providers: Any = None, **named: Any) -> None:
            session.wanted = tuple(providers)
            gpu.asked.append(session.wanted)
            begin(session, model, options, providers=[CPU], **named)

        def get_providers(session: Any) -> list[str]:
            return [each for each in asked(session) if each != CUDA or gpu.starts]

        def computed(session: Any, *given: Any) -> Any:
            if CUDA not in asked(session):
                end = time.thread_time() + WORK_S
                while time.thread_time() < end:
                    pass
            elif not gpu.works:
                raise RuntimeError("CUDA failure 803: system has unsupported display driver / cuda driver combination")
            return run(session, *given)

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, AZURE, CPU])
        monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", init)
        monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", get_providers)
        monkeypatch.setattr(onnxruntime.InferenceSession, "run", computed)
