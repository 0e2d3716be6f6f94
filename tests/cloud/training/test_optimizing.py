"""Variants that the export makes: from which samples, by which process, and what is exported when it fails."""

import io
import json
import re
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import optimizing
import packing
from edgeml.bundle import InputTensor
from export_support import draft
from ota_support import tiny_model

VECTOR, PICTURE = InputTensor(name="x", layout="tensor", shape=[4]), InputTensor(name="image")
GOOD = {name: packing.npy(np.zeros((5, 4), np.float32)) for name in (optimizing.CALIBRATION, optimizing.EVALUATION)}


def header(shape: tuple[int, ...], dtype: str, rest: bytes = b"") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": dtype})
    return file.getvalue() + rest


@pytest.mark.parametrize(
    ("declared", "content", "words"),
    [
        (VECTOR, packing.npy(np.zeros((1, 4), np.float32)), ""),
        (VECTOR, packing.npy(np.zeros((3, 4), np.int64)), ""),
        (VECTOR, packing.npy(np.zeros((3, 5), np.float32)), r"float32 \[3, 5\], expected numbers \[n, 4\]"),
        (VECTOR, packing.npy(np.zeros((0, 4), np.float32)), r"\[0, 4\]"),
        (VECTOR, packing.npy(np.zeros(4, np.float32)), r"\[4\]"),
        (VECTOR, packing.npy(np.array(1.0)), r"\[\]"),
        (VECTOR, packing.npy(np.array([["a"] * 4])), "<U1"),
        (VECTOR, header((2, 4), "|O", b"\x80\x04K\x01."), "object"),
        (VECTOR, header((1 << 60, 4), "<f4"), "another length than its header says"),
        (VECTOR, header((-2, 4), "<f4", bytes(32)), r"\[-2, 4\]"),
        (VECTOR, header((2, 4), "<f4", bytes(33)), "another length"),
        (VECTOR, b"PK\x03\x04" + bytes(100), "is no array: "),
        (VECTOR, header((2, 4), "<f4")[:20], "is no array: "),
        (VECTOR, packing.npy(np.zeros((2000, 4))), "64128 bytes, 64000 are allowed"),
        (PICTURE, packing.npy(np.zeros((2, 8, 9, 3), np.uint8)), ""),
        (
            PICTURE,
            packing.npy(np.zeros((2, 8, 9, 3), np.float32)),
            r"expected pictures \[n, height, width, 3\] of uint8",
        ),
        (PICTURE, packing.npy(np.zeros((2, 3, 8, 9), np.uint8)), r"uint8 \[2, 3, 8, 9\]"),
        (PICTURE, packing.npy(np.zeros((8, 9, 3), np.uint8)), r"uint8 \[8, 9, 3\]"),
    ],
)
def test_samples_are_of_the_models_input(
    declared: InputTensor, content: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizing, "MAX_BYTES", 64_000)
    if not words:
        optimizing.check("evaluation.npy", content, declared)
        return
    with pytest.raises(optimizing.NoneMadeError, match=f"evaluation.npy .*{words}"):
        optimizing.check("evaluation.npy", content, declared)


def files(**more: bytes) -> dict[str, bytes]:
    return {"model.onnx": tiny_model(), "bundle.json": json.dumps(draft()).encode(), **GOOD, **more}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Takes the place of scripts/optimize."""

    def put(program: str) -> None:
        (tmp_path / "optimize.py").write_text(f"import os, pathlib, shutil, sys, time\n{program}\n")
        monkeypatch.setattr(optimizing, "SCRIPT", tmp_path / "optimize.py")

    return put


COPIED = "out = pathlib.Path(sys.argv[sys.argv.index('--output') + 1]); shutil.copytree(sys.argv[1], out)"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("sys.exit('optimize: the model has no convolution')", "no variants: the model has no convolution\n"),
        ("print('a table', flush=True); raise ValueError('of NumPy')", "no variants: ValueError: of NumPy\na table\n"),
        ("sys.exit(3)", "no variants: ended with 3\n"),
        ("os.kill(os.getpid(), 9)", "no variants: ended with -9\n"),
        ("time.sleep(60)", "no variants: no end after 0.5 s\n"),
        ("pass", "no variants: .*model.json: No such file"),
        (f"{COPIED}; (out / 'model.onnx').write_bytes(b'no model')", "no variants: .*sha256 is"),
        ("sys.exit('x' * 100_000)", f"no variants: {'x' * 500}\n"),
    ],
    ids=["refused", "broken", "silent", "killed", "too slow", "nothing", "spoilt", "wordy"],
)
def test_what_fails_costs_the_variants_alone(
    app: ModuleType, script: Any, monkeypatch: pytest.MonkeyPatch, program: str, words: str
) -> None:
    plain = app.bundled(files()).content
    monkeypatch.setattr(optimizing, "TIMEOUT_S", 0.5 if "sleep" in program else 60.0)
    script(program)
    made = app.bundled(files(), 0.01)
    assert made.content == plain
    assert re.search(words, made.report), made.report


def test_samples_that_do_not_fit_cost_the_variants_alone(app: ModuleType) -> None:
    made = app.bundled(files(**{optimizing.EVALUATION: packing.npy(np.zeros((2, 9)))}), 0.01)
    assert "Tiny 1.4.0: no variants: evaluation.npy holds float64 [2, 9]" in made.report
    assert set(zipfile.ZipFile(io.BytesIO(made.content)).namelist()) == {"model.onnx", "model.json"}


@pytest.mark.parametrize(
    ("changes", "max_loss", "words"),
    [
        ({}, 0.0, "they are not wanted"),
        ({optimizing.EVALUATION: None}, 0.01, "the archive has no calibration.npy and evaluation.npy"),
        ({optimizing.CALIBRATION: None}, 0.01, "the archive has no calibration.npy and evaluation.npy"),
    ],
)
def test_without_samples_or_wish_nothing_is_tried(
    app: ModuleType,
    script: Any,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, None],
    max_loss: float,
    words: str,
) -> None:
    script("pathlib.Path('/nowhere').mkdir()")
    made = app.bundled({name: each for name, each in files().items() if name not in changes}, max_loss)
    assert made.report == ""
    assert capsys.readouterr().out == f"no variants are made: {words}\n"


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({}, (0.01, 1.05)),
        ({"MAX_LOSS": "0", "MIN_GAIN": "0"}, (0, 0)),
        ({"MAX_LOSS": "1"}, (1, 1.05)),
        ({"MAX_LOSS": "1.01"}, None),
        ({"MAX_LOSS": "-0.01"}, None),
        ({"MAX_LOSS": "nan"}, None),
        ({"MAX_LOSS": "off"}, None),
        ({"MIN_GAIN": "-1"}, None),
        ({"MIN_GAIN": "inf"}, None),
    ],
)
def test_limits_are_shares_and_numbers(
    app: ModuleType, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], limits: tuple[float, float] | None
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    if limits is None:
        with pytest.raises(SystemExit):
            app.parsed(["--package", "arn"])
        return
    options = app.parsed(["--package", "arn"])
    assert (options.max_loss, options.min_gain) == limits


def test_the_process_knows_no_secrets(app: ModuleType, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "SIGNING_KEY_SECRET"):
        monkeypatch.setenv(name, "secret")
    script("print(*sorted(os.environ)); sys.exit(1)")
    known = set(app.bundled(files(), 0.01).report.splitlines()[1].split())
    assert known - {"LC_CTYPE"} <= {"PATH", "HOME", "LANG", "TMPDIR"}
