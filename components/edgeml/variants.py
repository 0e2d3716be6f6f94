"""Variants of a bundle's model: files that are faster on processors or accelerators that they are made for."""

import platform
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgeml.files import read_regular

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Precision = Literal["int8", "fp16"]
Isa = Literal["x86_64", "x86_64_vnni", "aarch64", "any"]
VNNI = {"avx512_vnni", "avx_vnni"}  # either will do: ONNX Runtime's kernels know both
CPU = "CPUExecutionProvider"
# Of ONNX Runtime's providers those that compute in this machine, on no CPU, and need no settings; the preferred first.
ACCELERATORS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "MIGraphXExecutionProvider")
COMPILING = ("TensorrtExecutionProvider", "MIGraphXExecutionProvider")  # a program for each size of a model's input
MAX_CPUINFO = 4 << 20  # bytes; a machine of 256 cores tells some 400 kB


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """The model in another `file`, of `precision`, for `providers` and processors of `isa`.

    Of fp16, and for processors of any kind, it is for accelerators alone: the CPU's kernels gain nothing by it.
    `accuracy` is how well its answers agree with those of model.onnx, by measure, as seen on such a processor, or by
    emulation.
    """

    file: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\.onnx$(?!\n)")]
    sha256: Sha256
    precision: Precision
    isa: Isa
    providers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=8)] = (CPU,)
    accuracy: Annotated[dict[str, float], msgspec.Meta(max_length=16)] = {}

    @property
    def name(self) -> str:
        return self.precision if self.isa == "any" else f"{self.precision} {self.isa}"

    def runs_on(self, providers: Collection[str]) -> bool:
        """Whether it is for one of the `providers`."""
        its_own = {provider for provider in self.providers if provider != CPU or self._is_for_the_cpu}
        return not its_own.isdisjoint(providers)

    @property
    def _is_for_the_cpu(self) -> bool:
        return self.precision != "fp16" and self.isa != "any"


@dataclass(frozen=True)
class Processor:
    """What a processor can do: `machine` as uname says it, `flags` as /proc/cpuinfo does."""

    machine: str
    flags: frozenset[str] = frozenset()

    @property
    def isas(self) -> tuple[Isa, ...]:
        """What it runs, the best first."""
        if self.machine == "x86_64":
            return ("x86_64_vnni", "x86_64") if self.flags & VNNI else ("x86_64",)
        return ("aarch64",) if self.machine == "aarch64" else ()


def runnable(variants: Sequence[Variant], processor: Processor, providers: Collection[str] = (CPU,)) -> list[Variant]:
    """Those for a processor and one of the providers, the best first."""
    fitting = [variant for variant in variants if variant.runs_on(providers)]
    return [variant for isa in (*processor.isas, "any") for variant in fitting if variant.isa == isa]


def processor(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str = "") -> Processor:
    """This machine's; without flags where they cannot be read."""
    try:
        lines = read_regular(cpuinfo, MAX_CPUINFO).decode(errors="replace").splitlines()
    except OSError:
        lines = []
    told = (line.partition(":") for line in lines)
    flags = next((value for key, _, value in told if key.strip() in ("flags", "Features")), "")
    return Processor(machine or platform.machine(), frozenset(flags.split()))


@cache
def this_processor() -> Processor:
    return processor()
