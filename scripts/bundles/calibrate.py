"""The ranges that a model's tensors have on samples, by three methods; each leaves another part of outliers out."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bundles.quantize import OPERATORS

METHODS = ("minmax", "entropy", "percentile")
PERCENTILE = 99.999
DIGITS = 6  # of a range that is kept: more say nothing, and differ between processors

Feed = Mapping[str, np.ndarray[Any, Any]]


def ranges(prepared: onnx.ModelProto, method: str, samples: Iterable[Feed]) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each tensor that is quantized, by name. `samples` are the model's inputs."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as edgeml.onnx_session does
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    kinds = dict(zip(METHODS, ("MinMax", "Entropy", "Percentile"), strict=True))
    options = {"percentile": PERCENTILE} if method == "percentile" else {}
    logging.disable(logging.WARNING)  # which asks for steps that were taken
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            model = Path(folder) / "model.onnx"
            onnx.save(prepared, model)
            calibrator = create_calibrator(
                model,
                list(OPERATORS),
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=CalibrationMethod[kinds[method]],
                extra_options=options,
            )
            for sample in samples:  # one at a time: all tensors of all samples would need gigabytes
                calibrator.collect_data(_Reader(sample))
            found = calibrator.compute_data()
    finally:
        logging.disable(logging.NOTSET)
    return {
        name: (_rounded(np.min(data.range_value[0])), _rounded(np.max(data.range_value[1])))
        for name, data in sorted(found.items())
    }


def _rounded(value: Any) -> float:
    return float(f"{float(value):.{DIGITS}g}")


class _Reader:
    """What ONNX Runtime asks for the next sample."""

    def __init__(self, sample: Feed) -> None:
        self._left: list[Feed] = [sample]

    def get_next(self) -> Feed | None:
        return self._left.pop() if self._left else None
