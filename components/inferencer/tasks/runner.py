"""A loaded bundle that answers samples, and its session."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeml.bundle import Bundle
from edgeml.errors import BackendError, BundleError
from edgeml.onnx_session import extras, first_line, give_back, shrinking
from edgeml.variants import COMPILING, CPU
from inferencer.preprocess import Geometry
from inferencer.sample import Array, Outcome, Sample
from inferencer.tasks.outputs import Output

if TYPE_CHECKING:
    import onnxruntime as ort


NO_IMAGE = Geometry(0, 0)
WHOLE = (1, 1)  # columns and rows of tiles
MAX_BATCH = 16  # samples that are answered together
# Of input, in a batch on a processor. It saves what each run costs by itself, and what is computed costs as much as it
# does alone, or more once it leaves the caches: with 600 kB a sample already pairs do, with 16 kB more than eight.
CACHED_BYTES = 64 << 10
HELD_BYTES = 32 << 20  # of input, in a batch anywhere else: small pictures may become large ones


class Runner(Protocol):
    """One loaded bundle; swapped as a whole."""

    bundle: Bundle
    memory: object = None  # what it has gathered from samples, for the next version
    together: int = 1  # as Model has it

    def infer(self, sample: Sample) -> Outcome | None: ...

    def infer_all(self, samples: Sequence[Sample]) -> list[Outcome | None]:
        """The same for several. Raises BackendError if it fails at one of them."""
        return [self.infer(sample) for sample in samples]

    def rehearse(self) -> None:
        """One whole inference on zeros, from preparation to results. Raises BackendError if the parts do not fit."""

    def look(self, max_side: int, tiles: tuple[int, int]) -> None:
        """Shrink pictures to at most `max_side` pixels (0: not), and look at tiles of them. Raises BundleError."""
        if max_side or tiles != WHOLE:
            raise BundleError(f"{self.bundle.path}: max_side and tiles are for models of pictures, this takes numbers")

    def follow(self, memory: object) -> None:
        """Take over the `memory` of an earlier version, if it is of this kind; the pipeline's thread calls it once."""
        return


class Session:
    """An ONNX Runtime session and the names of the outputs that are asked for."""

    def __init__(self, bundle: Bundle, session: ort.InferenceSession) -> None:
        self._bundle, self._session = bundle, session
        self._has_arena = type(session).__module__.startswith("onnxruntime.")  # a helper's has none
        self.kinds = {output.name: str(output.type) for output in session.get_outputs()}
        self.names = list(self.kinds)

    def buffer(self) -> Array | None:
        """Where the input is best made, if the session has such a place."""
        find = getattr(self._session, "buffer", None)
        return find(self._bundle.manifest.input.name) if find else None

    def run(self, tensor: Array, geometry: Geometry = NO_IMAGE) -> dict[str, Any]:
        manifest = self._bundle.manifest
        given = {manifest.input.name: tensor}
        if manifest.extra_inputs:
            given |= extras(manifest, geometry.size, (geometry.width, geometry.height))
        try:
            options = shrinking() if self._has_arena else None
            more = () if options is None else (options,)
            outputs: Sequence[Any] = self._session.run(self.names, given, *more)
            if options is not None:  # its weights are the C library's by now
                give_back()
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise BackendError(f"{self._bundle.ref.name}: {first_line(error)}") from error
        return dict(zip(self.names, outputs, strict=True))

    def together(self, samples: Sequence[tuple[Array, Geometry]]) -> int:
        """How many such samples it answers sooner at once than one after the other, tried with two of them."""
        first: list[str] = getattr(self._session, "get_providers", list)()[:1]
        if set(first) & set(COMPILING):
            return 1
        most = min(MAX_BATCH, (CACHED_BYTES if first == [CPU] else HELD_BYTES) // samples[0][0].nbytes)
        return most if most > 1 and self._takes_batches(samples) else 1

    def _takes_batches(self, samples: Sequence[tuple[Array, Geometry]]) -> bool:
        """Does it give for two samples at once what it gives for each? It need not, though its shapes may say so."""
        if self._bundle.manifest.extra_inputs or samples[0][0].shape != samples[1][0].shape:
            return False
        try:
            both = self.run(np.concatenate([tensor for tensor, _ in samples]))
        except BackendError:
            return False
        alone = [_kept(self.run(*sample)) for sample in samples]
        return all(
            np.shape(both[name])[:1] == (2,)
            and np.shape(both[name][row : row + 1]) == np.shape(one[name])
            and np.allclose(both[name][row : row + 1], one[name], rtol=1e-3, atol=1e-4)
            for row, one in enumerate(alone)
            for name in self.names
        )

    def outputs(self, samples: Sequence[tuple[Array, Geometry]]) -> list[Output]:
        """What the model gives for the first sample, and for those of the others that it takes."""
        answers = [_kept(self.run(*samples[0]))]
        for tensor, geometry in samples[1:]:
            with contextlib.suppress(BackendError):
                answers.append(_kept(self.run(tensor, geometry)))
        ends = self._bundle.graph.ends
        return [
            Output(name, kind, tuple(answer[name] for answer in answers), ends.get(name, ""))
            for name, kind in self.kinds.items()
        ]


def _kept(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of outputs, arrays or lists: a session may use their memory for the next ones."""
    return {name: value.copy() for name, value in outputs.items()}
