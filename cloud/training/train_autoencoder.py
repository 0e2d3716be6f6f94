"""Trains the wind turbine's anomaly model. A SageMaker script-mode entry point that runs anywhere.

    .venv-training/bin/python cloud/training/train_autoencoder.py --train recordings/ --model-dir model/

Recordings are of a healthy turbine. K contiguous folds in time give errors on readings the model has not seen; from
the largest of these come the thresholds. The model that is kept is then trained on everything.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from torch import Tensor

import autoencoder
import packing
import turbine_data
from autoencoder import Autoencoder
from edgeml.turbine import FEATURES, Statistics, Windows

# For the estimator's `metric_definitions`: SageMaker finds these in the log.
METRICS = [
    {"Name": name, "Regex": rf"\b{name}=([0-9.eE+-]+);"} for name in ("train_mae", "validation_mae", "threshold_max")
]


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains the wind turbine's anomaly model.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak of the one-cycle schedule")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--noise", type=float, default=0.1, help="deviation added to the code while training")
    parser.add_argument("--swap", type=float, default=0.2, help="share of signals taken from another window")
    parser.add_argument("--threshold-margin", type=float, default=1.25, help="factor on the largest healthy error")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="more add in another order and give other weights")
    parser.add_argument("--model-version", default="1.0.0")
    parser.add_argument("--data-source", default="data of its user", help="told in the bundle")
    for name, variable, default in (
        ("--train", "SM_CHANNEL_TRAIN", "data"),
        ("--model-dir", "SM_MODEL_DIR", "model"),
        ("--output-data-dir", "SM_OUTPUT_DATA_DIR", "output"),
    ):
        parser.add_argument(name, type=Path, default=Path(os.environ.get(variable, default)))
    parser.add_argument("--archive", type=Path, help="also pack the model directory, which SageMaker does by itself")
    parser.add_argument("--bundle", type=Path, help="also export the model bundle into this folder")
    options = parser.parse_args(arguments)
    if options.folds < 2 or options.epochs < 1:
        parser.error("at least two folds and one epoch are needed")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    cuts, statistics = turbine_data.prepare(turbine_data.read_recordings(options.train))
    if len(cuts) < options.folds:
        raise SystemExit(f"{options.train}: {len(cuts)} cuts are too few for {options.folds} folds")
    print(f"{len(cuts)} cuts of {cuts.shape[1]} windows", flush=True)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(options.threads)
    errors = np.concatenate([held_out_errors(cuts, fold, options) for fold in range(options.folds)])
    thresholds = errors.max(axis=0) * options.threshold_margin
    model = fit(cuts, None, options, "final")
    metrics = {
        "validation_mae": float(errors.mean()),
        "healthy_mae": dict(zip(FEATURES, errors.mean(axis=0).tolist(), strict=True)),
        "thresholds": dict(zip(FEATURES, thresholds.tolist(), strict=True)),
        "cuts": len(cuts),
        "folds": options.folds,
    }
    print(f"validation_mae={metrics['validation_mae']:.5f}; threshold_max={thresholds.max():.5f};", flush=True)
    save(model, statistics, thresholds, metrics, packing.samples(cuts.reshape(-1, *cuts.shape[2:])), options)


def held_out_errors(cuts: Windows, fold: int, options: argparse.Namespace) -> npt.NDArray[Any]:
    """Trains without the fold-th stretch of time; the errors on it as the edge computes them, [cuts of it, 6]."""
    stretches = np.array_split(np.arange(len(cuts)), options.folds)
    training = np.concatenate([stretch for index, stretch in enumerate(stretches) if index != fold])
    held_out = cuts[stretches[fold]]
    model = fit(cuts[training], held_out, options, f"fold {fold + 1}/{options.folds}")
    return cut_errors(model, held_out)


def cut_errors(model: Autoencoder, cuts: Windows) -> npt.NDArray[Any]:
    """Mean absolute error per cut and feature: [cuts, windows, 6, 10, 10] -> [cuts, 6]."""
    with torch.no_grad():
        reconstruction = model(torch.from_numpy(cuts.reshape(-1, *cuts.shape[2:]))).numpy().reshape(cuts.shape)
    return np.asarray(np.abs(reconstruction - cuts).mean(axis=(1, 3, 4)))


def fit(cuts: Windows, held_out: Windows | None, options: argparse.Namespace, name: str) -> Autoencoder:
    """A model trained on `cuts`; after every epoch its error there, and on `held_out` if given, goes to the log."""
    torch.manual_seed(options.seed)
    model = Autoencoder(options.noise)
    windows = torch.from_numpy(cuts.reshape(-1, *cuts.shape[2:]))
    optimizer = torch.optim.Adam(model.parameters())
    steps = options.epochs * -(-len(windows) // options.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, total_steps=steps)
    bar = track(range(1, options.epochs + 1), description=name, disable=not sys.stderr.isatty())
    for epoch in bar:
        started, total = time.monotonic(), 0.0
        model.train()
        for batch in batches(windows, options.batch_size):
            loss = (model(swapped(batch, options.swap)) - batch).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        model.eval()
        validation = f" validation_mae={cut_errors(model, held_out).mean():.5f};" if held_out is not None else ""
        seconds = time.monotonic() - started
        print(f"{name}: epoch={epoch}; train_mae={total / len(windows):.5f};{validation} {seconds:.1f} s", flush=True)
    return model


def batches(windows: Tensor, size: int) -> Iterator[Tensor]:
    for indexes in torch.randperm(len(windows)).split(size):
        yield windows[indexes]


def swapped(windows: Tensor, share: float) -> Tensor:
    """A copy in which that share of the signals comes from other windows of the batch.

    The model has to restore them from the rest, and so learns how the signals depend on each other; without this it
    would copy a wrong voltage as well as a right one.
    """
    others = windows[torch.randperm(len(windows))]
    chosen = torch.rand(windows.shape[:2]) < share
    return torch.where(chosen[:, :, None, None], others, windows)


def save(
    model: Autoencoder,
    statistics: Statistics,
    thresholds: npt.NDArray[Any],
    metrics: dict[str, Any],
    samples: dict[str, bytes],
    options: argparse.Namespace,
) -> None:
    """model.pth, bundle.json (model.json but for the digests), statistics, samples; archive and bundle if wanted."""
    options.model_dir.mkdir(parents=True, exist_ok=True)
    options.output_data_dir.mkdir(parents=True, exist_ok=True)
    draft = draft_manifest(options.model_version, thresholds, options.data_source)
    arrays = {f"{name}.npy": packing.npy(array) for name, array in vars(statistics).items()}
    torch.save(model.state_dict(), options.model_dir / "model.pth")
    (options.model_dir / "bundle.json").write_text(json.dumps(draft, indent=2) + "\n", encoding="utf-8")
    for name, content in (arrays | samples).items():
        (options.model_dir / name).write_bytes(content)
    for folder in (options.model_dir, options.output_data_dir):
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    if options.archive:
        packing.pack(options.model_dir, options.archive)
    if options.bundle:
        packing.write_bundle(options.bundle, draft, autoencoder.to_onnx(model), arrays)


def draft_manifest(version: str, thresholds: npt.NDArray[Any], data_source: str) -> dict[str, Any]:
    shape = [autoencoder.CHANNELS, autoencoder.SIDE, autoencoder.SIDE]
    return {
        "name": "WindTurbine",
        "version": version,
        "task": "anomaly",
        "input": {"name": "input", "layout": "tensor", "shape": shape, "dtype": "float32"},
        "output": {"decoder": "anomaly", "shapes": {"reconstruction": [-1, *shape]}},
        "labels": list(FEATURES),
        "thresholds": {"mae": [round(float(threshold), 4) for threshold in thresholds]},
        "license": "Apache-2.0",
        "source": f"cloud/training/train_autoencoder.py on {data_source}",
    }


if __name__ == "__main__":
    main()
