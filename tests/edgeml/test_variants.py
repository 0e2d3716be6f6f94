"""Variants of a model in a bundle: verified as everything else in it; which processor runs which."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle_support import described, made, refused
from edgeml import models
from edgeml.bundle import MODEL
from edgeml.errors import BundleError
from edgeml.messages import encode
from edgeml.variants import CPU, Processor, processor, runnable

CUDA = "CUDAExecutionProvider"


def with_variant(folder: Path, **changes: Any) -> Path:
    made(folder)
    shutil.copy(folder / MODEL, folder / "int8.onnx")
    variant = {"file": "int8.onnx", "sha256": models.sha256(folder / MODEL), "precision": "int8", "isa": "x86_64"}
    return described(folder, variants=[{**variant, **changes}])


def test_a_variant_is_loaded_from_the_bytes_that_were_hashed(tmp_path: Path) -> None:
    bundle = models.load(with_variant(tmp_path / "b"))
    assert bundle.model.name == MODEL
    assert encode(bundle.ref) == b'{"name":"Double","version":"1.0.0"}'
    chosen = bundle.using("int8.onnx", "2.00 x as fast as fp32 here")
    assert chosen.ref.variant == "int8 x86_64"
    (out,) = models.open_session(chosen).run(None, {"image": np.zeros((1, 3, 4, 4), np.float32)})
    assert out.max() == 2
    (tmp_path / "b" / "int8.onnx").write_bytes(b"another one")
    with pytest.raises(BundleError, match=r"int8\.onnx: sha256 is"):
        models.open_session(chosen)
    assert "int8.onnx: sha256 is" in refused(tmp_path / "b")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"file": "no.onnx"}, "No such file"),
    "elsewhere": ({"file": "../int8.onnx"}, "file"),
    "hidden behind another": ({"file": MODEL}, f"names {MODEL} twice"),
    "of another hash": ({"sha256": "0" * 64}, "sha256 is"),
    "of an unknown kind": ({"precision": "int4"}, "int8"),
    "for an unknown processor": ({"isa": "riscv64"}, "aarch64"),
    "for no provider": ({"providers": []}, "providers"),
    "of endless accuracy": ({"accuracy": {str(number): 1.0 for number in range(17)}}, "accuracy"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_about_a_variant_refuses_the_bundle(kind: str, tmp_path: Path) -> None:
    changes, words = WRONG[kind]
    assert words in refused(with_variant(tmp_path / "b", **changes))


def test_a_variant_with_undeclared_weights_is_not_opened(tmp_path: Path) -> None:
    folder = made(tmp_path / "b", weights="w.bin")
    shutil.move(folder / MODEL, folder / "int8.onnx")
    made(folder)
    digest = models.sha256(folder / "int8.onnx")
    described(folder, variants=[{"file": "int8.onnx", "sha256": digest, "precision": "int8", "isa": "x86_64"}])
    with pytest.raises(BundleError, match=r"weights in 'w\.bin', which is not declared"):
        models.open_session(models.load(folder).using("int8.onnx"))


@pytest.mark.parametrize(
    ("text", "machine", "isas"),
    [
        ("model name\t: x\nflags\t\t: fpu avx2 avx512_vnni\n", "x86_64", ("x86_64_vnni", "x86_64")),
        ("flags : avx_vnni", "x86_64", ("x86_64_vnni", "x86_64")),
        ("flags : avx2 avx512f", "x86_64", ("x86_64",)),
        ("Features\t: fp asimd asimddp", "aarch64", ("aarch64",)),
        ("\xff nothing: of it", "x86_64", ("x86_64",)),
        ("flags : avx512_vnni", "riscv64", ()),
    ],
)
def test_a_processor_is_known_by_its_flags(text: str, machine: str, isas: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text, "latin-1")
    assert processor(tmp_path / "cpuinfo", machine).isas == isas


def test_a_variant_is_for_one_of_its_providers(tmp_path: Path) -> None:
    """The updater and the export try those for the CPU: one for an accelerator may not run there at all."""
    variants = models.load(with_variant(tmp_path / "b", providers=["CUDAExecutionProvider"])).manifest.variants
    assert not runnable(variants, Processor("x86_64"))
    there = ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert runnable(variants, Processor("x86_64"), there) == variants


@pytest.mark.parametrize(
    ("changes", "on_cuda"),
    [
        ({"precision": "fp16", "isa": "any", "providers": [CPU, CUDA]}, True),
        ({"precision": "fp16", "isa": "x86_64", "providers": [CPU]}, False),
        ({"precision": "int8", "isa": "any", "providers": [CPU, CUDA]}, True),
        ({"precision": "int8", "isa": "any", "providers": ["MoonExecutionProvider"]}, False),
        ({"precision": "fp16", "isa": "aarch64", "providers": [CUDA]}, False),
    ],
    ids=["both", "CPU", "any", "unknown", "another processor's"],
)
def test_fp16_and_what_is_for_any_processor_is_for_no_cpu(
    changes: dict[str, Any], on_cuda: bool, tmp_path: Path
) -> None:
    variants = models.load(with_variant(tmp_path / "b", **changes)).manifest.variants
    assert not runnable(variants, Processor("x86_64"))
    assert runnable(variants, Processor("x86_64"), (CUDA, CPU)) == (variants if on_cuda else [])


@pytest.mark.parametrize("made_there", [None, Path.mkdir])
def test_without_cpuinfo_it_runs_what_every_one_does(made_there: Callable[[Path], None] | None, tmp_path: Path) -> None:
    if made_there:
        made_there(tmp_path / "cpuinfo")
    assert processor(tmp_path / "cpuinfo", "x86_64") == Processor("x86_64")
