"""fp16 variants that scripts/optimize makes: judged as an accelerator would compute them, and run by no CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import optimize
from bundles import half
from edgeml import models
from edgeml.onnx_session import runtime
from edgeml.variants import ACCELERATORS, CPU, Processor, runnable
from optimize_support import SIDE, colours, pictures

Arguments = Callable[..., list[str]]
VNNI = Processor("x86_64", frozenset({"avx_vnni"}))


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    monkeypatch.setattr(optimize, "this_processor", lambda: VNNI)
    monkeypatch.setattr(optimize, "faster", lambda *_: 2.0)
    evaluation = ["--evaluate", str(pictures(tmp_path / "e", 2))]
    return lambda *more: [str(tmp_path / "bundle"), *evaluation, *more]


def test_it_is_for_accelerators_and_answers_as_fp32_does(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = colours(tmp_path / "bundle")
    assert optimize.main(arguments("--fp16")) == 0
    assert "expected_top1 1.0000" in capsys.readouterr().out
    made = models.load(bundle)
    (variant,) = made.manifest.variants
    assert (variant.name, variant.isa, variant.providers) == ("fp16", "any", ACCELERATORS)
    assert variant.accuracy["top1_agreement"] == 1
    for machine in (VNNI, Processor("aarch64"), Processor("riscv64")):
        assert runnable(made.manifest.variants, machine, ("CUDAExecutionProvider",)) == [variant]
        assert not runnable(made.manifest.variants, machine, (CPU,))
    session = models.open_session(made.using(variant.file))  # whose inputs and outputs stay
    picture = {"input": np.random.default_rng(3).uniform(0, 4, (1, 3, SIDE, SIDE)).astype(np.float32)}
    (found,), (expected,) = session.run(None, picture), models.open_session(made).run(None, picture)
    np.testing.assert_allclose(found, expected, atol=0.01)
    weights = onnx.load_from_string(made.read(variant.file)).graph.initializer
    assert {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}
    assert half.halved(made.read("model.onnx")) == made.read(variant.file)  # as a build makes it again


@pytest.mark.parametrize("order", [("--fp16", "int8"), ("int8", "--fp16"), ("both",)], ids=" ".join)
def test_it_leaves_other_variants_alone(order: tuple[str, ...], tmp_path: Path, arguments: Arguments) -> None:
    bundle = colours(tmp_path / "bundle")
    calibration = ["--calibration", str(pictures(tmp_path / "c", 1)), "--method", "minmax"]
    means = {"--fp16": ["--fp16"], "int8": calibration, "both": ["--fp16", *calibration]}
    for step in (*order, *order):
        assert optimize.main(arguments(*means[step])) == 0
    assert sorted(variant.name for variant in models.load(bundle).manifest.variants) == ["fp16", "int8 x86_64_vnni"]


def test_it_is_made_where_int8_cannot_be(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(optimize, "this_processor", lambda: Processor("riscv64"))
    bundle = colours(tmp_path / "bundle")
    assert optimize.main(arguments("--fp16", "--calibration", str(pictures(tmp_path / "c", 1)))) == 0
    assert [variant.name for variant in models.load(bundle).manifest.variants] == ["fp16"]
    assert "no INT8: no variants are known for this processor (riscv64)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "allowed", "words"), [(1e6, 1.0, "is not finite"), (1.0, -1.0, "lost too much")], ids=["large", "coarse"]
)
def test_what_16_bits_cannot_hold_is_seen(
    size: float, allowed: float, words: str, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime's CPU, which is given the same file, computes it in 32 bits and sees nothing."""
    bundle = colours(tmp_path / "bundle", size)
    before = (bundle / "model.json").read_bytes()
    assert optimize.main(arguments("--fp16", "--max-loss", str(allowed))) == 1
    told = capsys.readouterr()
    assert words in told.out + told.err
    assert "the bundle stays as it is" in told.err
    assert (bundle / "model.json").read_bytes() == before


def test_what_is_spelled_out_is_what_16_bits_give() -> None:
    """Each step by NumPy's float16, and by ONNX Runtime's CPU on the model whose conversions are spelled out."""
    factors = [1.1, 3.3e-3, 700.0]
    names = ["input", "a", "b", "output"]
    nodes = [helper.make_node("Mul", [names[i], f"f{i}"], [names[i + 1]]) for i in range(3)]
    weights = [numpy_helper.from_array(np.array([factor], np.float32), f"f{i}") for i, factor in enumerate(factors)]
    model = whole(nodes, weights)
    made = half.halved(model)
    given = np.array([[1.2345678, 9.87e-4, 65_000.0, -70_000.0]], np.float32)
    with np.errstate(over="ignore"):
        expected = given.astype(np.float16)
        for factor in factors:
            expected = expected * np.float16(factor)
    session = runtime().InferenceSession(half.spelled_out(made), providers=[CPU])
    (found,) = session.run(None, {"input": given})
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def whole(nodes: Any, weights: Any) -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return bytes(model.SerializeToString())


def conditional() -> bytes:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["x"])],
        "b",
        [],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    return whole([helper.make_node("If", ["yes"], ["output"], then_branch=branch, else_branch=branch)], [yes])


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "without weights": (lambda: whole([helper.make_node("Relu", ["input"], ["output"])], []), "no weights in float32"),
    "with conditions": (conditional, "by condition"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_converted_is_said(kind: str) -> None:
    model, words = REFUSED[kind]
    with pytest.raises(half.NotConvertedError, match=words):
        half.halved(model())


@pytest.mark.parametrize("more", [[], ["--plan", "p.json", "--fp16"]], ids=["nothing asked for", "a plan"])
def test_what_it_needs_to_be_told(more: list[str], arguments: Arguments, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        optimize.main(arguments(*more))
    assert "--calibration" in capsys.readouterr().err.splitlines()[-1]
