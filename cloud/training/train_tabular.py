"""Trains models that predict one number from a row of numbers, compares them, and keeps the best as ONNX.

    .venv-training/bin/python cloud/training/train_tabular.py --train tables/ --model-dir model/

Every *.csv of the channel has a header; the last column is what to predict. A SageMaker script-mode entry point that
runs anywhere.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import RegressorMixin
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import packing
from edgeml.onnx_session import runtime

Table = npt.NDArray[np.float32]

INPUT = "features"
OPSET = 17
TOLERANCE = 1e-4  # of ONNX Runtime against scikit-learn, relative to the target's deviation

METRICS = [
    {"Name": f"{name}_rmse", "Regex": rf"\b{name}_rmse=([0-9.eE+-]+);"}
    for name in ("mean", "knn", "linear", "boosting")
]


def candidates(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """The models that compete. Trees take the columns as they are: scaling in float32 would move their splits."""
    return {
        "knn": lambda: make_pipeline(StandardScaler(), KNeighborsRegressor(options.neighbors)),
        "linear": lambda: make_pipeline(StandardScaler(), LinearRegression()),
        "boosting": lambda: GradientBoostingRegressor(
            n_estimators=options.trees, max_depth=options.depth, subsample=0.8, random_state=options.seed
        ),
    }


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains and compares models on a table.")
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--neighbors", type=int, default=8)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model-name", default="Duration")
    parser.add_argument("--model-version", default="1.0.0")
    parser.add_argument("--data-source", default="data of its user", help="told in the bundle")
    for name, variable, default in (
        ("--train", "SM_CHANNEL_TRAIN", "data"),
        ("--model-dir", "SM_MODEL_DIR", "model"),
        ("--output-data-dir", "SM_OUTPUT_DATA_DIR", "output"),
    ):
        parser.add_argument(name, type=Path, default=Path(os.environ.get(variable, default)))
    parser.add_argument("--archive", type=Path, help="also pack the model directory, which SageMaker does by itself")
    parser.add_argument("--bundle", type=Path, help="also write the model bundle into this folder")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    columns, table = read_tables(options.train)
    rows, target = table[:, :-1], table[:, -1]
    errors = {"mean": float(target.std())}  # what always predicting the mean would give
    for name, make in candidates(options).items():
        errors[name] = rmse(make(), rows, target, options)
    print(comparison(errors), flush=True)
    best = min(candidates(options), key=errors.__getitem__)
    model = candidates(options)[best]().fit(rows, target)
    save(exported(model, rows, float(target.std())), best, columns, errors, packing.samples(rows), options)


def read_tables(folder: Path) -> tuple[list[str], Table]:
    """Column names, and all rows of all *.csv. Raises SystemExit when there is none or their headers differ."""
    paths = sorted(folder.glob("*.csv"))
    headers = {path.read_text(encoding="utf-8").partition("\n")[0] for path in paths}
    if len(headers) != 1:
        raise SystemExit(f"{folder}: expected *.csv with one and the same header, found {len(headers)} headers")
    tables = [np.loadtxt(path, np.float32, delimiter=",", skiprows=1, ndmin=2) for path in paths]
    return headers.pop().strip().split(","), np.concatenate(tables)


def rmse(model: RegressorMixin, rows: Table, target: Table, options: argparse.Namespace) -> float:
    """Root of the mean squared error on rows that the model was not trained on."""
    folds = KFold(options.folds, shuffle=True, random_state=options.seed)
    predicted = cross_val_predict(model, rows, target, cv=folds)
    return float(np.sqrt(np.mean((predicted - target) ** 2)))


def comparison(errors: dict[str, float]) -> str:
    """A table for people, best first, then one line for SageMaker."""
    ordered = sorted(errors.items(), key=lambda item: item[1])
    lines = [
        f"{'model':<10} {'RMSE':>9}   of mean",
        *(f"{n:<10} {e:>9.3f} {e / errors['mean']:>9.1%}" for n, e in ordered),
    ]
    return "\n".join([*lines, " ".join(f"{name}_rmse={error:.6f};" for name, error in errors.items())])


def exported(model: RegressorMixin, rows: Table, deviation: float) -> bytes:
    """The model as ONNX: `features` [batch, n] -> `variable` [batch, 1]. Raises SystemExit if it predicts otherwise."""
    inputs = [(INPUT, FloatTensorType([None, rows.shape[1]]))]
    content: bytes = to_onnx(model, initial_types=inputs, target_opset=OPSET).SerializeToString(deterministic=True)
    session = runtime().InferenceSession(content, providers=["CPUExecutionProvider"])
    (predicted,) = session.run(None, {INPUT: rows})
    worst = float(np.abs(predicted[:, 0] - model.predict(rows)).max())
    if worst > TOLERANCE * deviation:
        raise SystemExit(f"ONNX Runtime predicts up to {worst:.3g} beside scikit-learn")
    return content


def save(
    model: bytes,
    kind: str,
    columns: list[str],
    errors: dict[str, float],
    samples: dict[str, bytes],
    options: argparse.Namespace,
) -> None:
    """model.onnx, bundle.json (model.json but for the digests), metrics, samples; archive and bundle if wanted."""
    options.model_dir.mkdir(parents=True, exist_ok=True)
    options.output_data_dir.mkdir(parents=True, exist_ok=True)
    draft = {
        "name": options.model_name,
        "version": options.model_version,
        "task": "regression",
        "input": {"name": INPUT, "layout": "tensor", "shape": [len(columns) - 1], "dtype": "float32"},
        "output": {
            "decoder": "regression",
            "parameters": {"features": columns[:-1], "target": columns[-1]},
            "shapes": {"variable": [-1, 1]},
        },
        "license": "Apache-2.0",
        "source": f"cloud/training/train_tabular.py on {options.data_source}, {kind}, RMSE {errors[kind]:.3f}",
    }
    for name, content in {"model.onnx": model, **samples}.items():
        (options.model_dir / name).write_bytes(content)
    (options.model_dir / "bundle.json").write_text(json.dumps(draft, indent=2) + "\n", encoding="utf-8")
    metrics = {"best": kind, "rmse": errors}
    for folder in (options.model_dir, options.output_data_dir):
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    if options.archive:
        packing.pack(options.model_dir, options.archive)
    if options.bundle:
        packing.write_bundle(options.bundle, draft, model, {})


if __name__ == "__main__":
    main()
