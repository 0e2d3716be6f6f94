"""Does a decoder fit what a model gives? Decided once, when a bundle is loaded, by name, type, shape and values.

Each fit looks at the outputs of a few samples, and says which of them the decoder reads and with what parameters, or
refuses in one sentence: what was expected, what is there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeml.bundle import Bundle
from edgeml.errors import BundleError
from inferencer.preprocess import Array

SLACK = 1e-3  # of a probability in half precision


@dataclass(frozen=True)
class Output:
    """What a model gave under one name. `kind` is ONNX Runtime's type, `values` holds one value per sample."""

    name: str
    kind: str
    values: tuple[Any, ...]
    end: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.values[0]) if self.kind.startswith("tensor") else ()

    @property
    def floats(self) -> bool:
        return self.kind in ("tensor(float)", "tensor(float16)", "tensor(double)")

    def __str__(self) -> str:
        if self.kind.startswith("tensor"):
            return f"{self.name} {self.kind[7:-1]} {list(self.shape)}"
        return f"{self.name} {self.kind}"


@dataclass(frozen=True)
class Plan:
    """Which outputs are asked for, and what the decoder is told. `keys` orders an output that is a map of scores."""

    names: tuple[str, ...]
    parameters: Mapping[str, Any]
    keys: tuple[Any, ...] = ()


Fit = Callable[[Sequence[Output], Sequence[str], Mapping[str, Any]], Plan]


def plan(bundle: Bundle, outputs: Sequence[Output], fit: Fit) -> Plan:
    """How the bundle's decoder reads these outputs, if `fit` says so. Raises BundleError."""
    declared = bundle.manifest.output
    try:
        return fit(_named(declared.name, outputs), bundle.labels, declared.parameters)
    except Misfit as error:
        there = ", ".join(map(str, outputs)) or "nothing"
        raise BundleError(
            f"{bundle.model}: decoder {declared.decoder} cannot read the outputs: {error}; there is {there}"
        ) from error


class Misfit(Exception):  # noqa: N818  (becomes the middle of a sentence)
    """What was expected, and what the outputs look like instead."""


def _named(name: str, outputs: Sequence[Output]) -> Sequence[Output]:
    if not name:
        return outputs
    found = [output for output in outputs if output.name == name]
    if not found:
        raise Misfit(f"expected an output {name!r}, as output.name says")
    return found


def flag(parameters: Mapping[str, Any], name: str) -> bool | None:
    """True or false, None where it is not said. Raises Misfit."""
    value = parameters.get(name)
    if not isinstance(value, bool | None):
        raise Misfit(f"expected true or false as {name}, found {value!r}")
    return value


def probabilities(output: Output) -> bool:
    """Whether all that an output gave for the samples lies between 0 and 1."""
    return all(
        not value.size or (value.min() >= -SLACK and value.max() <= 1 + SLACK)
        for value in map(np.asarray, output.values)
    )


def table(value: Any, keys: Sequence[Any]) -> Array:
    """An output as an array [1, n] or as it is: the scores of a map in the order of `keys`. Raises LookupError."""
    return np.array([[value[0][key] for key in keys]], np.float32) if keys else value
