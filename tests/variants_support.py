"""Bundles with variants, and machines that run them, of which tests say how fast they are and what they have."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeml import models
from edgeml.component import Context
from edgeml.errors import ProviderError
from edgeml.place import Place
from edgeml.variants import CPU, Processor
from inferencer.backends.onnx import OnnxBackend, OnnxModel
from inferencer.sources.camera import CameraSource
from inferencer.tasks.runner import Session
from inferencer.trial import How
from inferencer_support import classifier, describe, make_context, mean_model, picture, pipeline, sample
from support import eventually

PLAIN, VNNI, ARM = Processor("x86_64"), Processor("x86_64", frozenset({"avx_vnni"})), Processor("aarch64")
FP32, PLAIN8, VNNI8, ARM8 = "model.onnx", "int8-x86_64.onnx", "int8-x86_64_vnni.onnx", "int8-aarch64.onnx"
HALF = "fp16-any.onnx"
CUDA, TENSORRT, AZURE = "CUDAExecutionProvider", "TensorrtExecutionProvider", "AzureExecutionProvider"
COLD = Place(Path("/nowhere"))  # whatever the machine is that runs the tests

FAST = {FP32: 0.018, PLAIN8: 0.012, VNNI8: 0.01, ARM8: 0.009}


def with_variants(folder: Path, *isas: str, bias: float = 0.001, **changes: Any) -> Path:
    """A bundle of a classifier, whose variants are off by `bias`; that for any processor is fp16, for CUDA."""
    classifier(folder)
    variants = []
    for isa in isas:
        precision, provider = ("fp16", CUDA) if isa == "any" else ("int8", CPU)
        file = folder / f"{precision}-{isa}.onnx"
        mean_model(file, bias=bias)
        one = {"file": file.name, "sha256": models.sha256(file), "precision": precision, "isa": isa}
        variants.append({**one, "providers": [provider], **changes})
    return changed(folder, variants=variants)


def changed(folder: Path, **changes: Any) -> Path:
    declared = {**json.loads((folder / "model.json").read_text()), **changes}
    for key in ("name", "sha256"):
        del declared[key]
    return describe(folder, declared.pop("version"), declared)


@dataclass
class Machine:
    """A processor with a clock of its own, on which each file takes so many seconds; on accelerators `PROVIDER FILE`.

    What is `absent` does not start, and `slow` is how many seconds others take to.
    """

    processor: Processor = VNNI
    seconds: dict[str, float] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    now: float = 0.0
    computed: float = 0.0  # seconds of a thread: one that waits for an accelerator computes nothing
    opened: list[str] = field(default_factory=list)
    absent: frozenset[str] = frozenset()
    slow: dict[str, float] = field(default_factory=dict)
    ran: Callable[[], object] = lambda: None

    def how(self, wanted: Any = "auto", **settings: Any) -> How:
        made = How(wanted, 3.0, ("CPUExecutionProvider",), 1, "all", 0, self.processor, lambda: self.now, self._open)
        return replace(made, own_time=lambda: self.computed, **{"place": COLD, **settings})

    def _open(self, bundle: models.Bundle, how: How) -> Session:
        name = f"{bundle.provider} {bundle.file}".strip()
        self.opened.append(name)
        if bundle.provider in self.absent:
            raise ProviderError(f"{bundle.provider} does not start: no library")
        self.now += self.slow.get(bundle.provider, 0.0)
        session: Any = Slow(models.open_session(bundle, threads=how.threads), name, self)
        return Session(bundle, session)


class Slow:
    """An ONNX Runtime session on such a machine."""

    def __init__(self, session: Any, file: str, machine: Machine) -> None:
        self._session, self._file, self._machine = session, file, machine

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def run(self, names: Any, given: Any, *options: Any) -> Any:
        self._machine.ran()
        seconds = self._machine.seconds.get(self._file, 0.01)
        self._machine.now += seconds
        self._machine.computed += 0.0 if " " in self._file else seconds
        if self._file in self._machine.broken:
            raise RuntimeError("an instruction that this processor lacks")
        return self._session.run(names, given, *options)


@contextmanager
def models_of(work: Path) -> Iterator[Callable[..., OnnxModel]]:
    """Starts models in the folder `work`, which end with it; `device` is where the machine tells of itself."""
    made: list[OnnxModel] = []
    numbers = itertools.count()

    def start(folder: Path, context: Context | None = None, device: Place = COLD, **settings: Any) -> OnnxModel:
        backend = OnnxBackend(model="Tiny", path=str(folder), **settings)
        whole, context = pipeline(backend, CameraSource(camera="c")), context or make_context(work)
        made.append(OnnxModel(backend, whole, context, f"p{next(numbers)}", device=device))
        eventually(made[-1].poll)
        return made[-1]

    yield start
    for model in made:
        model.close()


def runs(model: OnnxModel) -> str:
    outcome = model.infer(sample(picture(blue=200)))
    assert outcome is not None
    return outcome.model.variant
