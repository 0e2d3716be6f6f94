"""train_autoencoder.py on a small recording, as SageMaker would run it, in the venv that has PyTorch."""

import io
import json
import os
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import training_support
from edgeml import models
from edgeml.turbine import FEATURES, Statistics, TurbineFeatures, errors
from localdev.simulators.turbine import Fault, readings, write_csv
from support import ROOT
from training_support import needs_training

pytestmark = needs_training


@dataclass(frozen=True)
class Run:
    model_dir: Path
    archive: Path
    bundle: Path
    log: str


def train(folder: Path, recordings: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "SM_CHANNEL_TRAIN": str(recordings),
        "SM_MODEL_DIR": str(folder / "model"),
        "SM_OUTPUT_DATA_DIR": str(folder / "output"),
    }
    script = ROOT / "cloud" / "training" / "train_autoencoder.py"
    return training_support.run(
        "torch._dynamo", script, "--epochs", "2", "--folds", "2", "--model-version", "1.2.3", *extra, env=environment
    )


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for seed in (1, 2):
        with (folder / f"{seed}.csv").open("w") as file:
            write_csv(file, 3000, seed, Fault.NONE, 0)
    return folder


@pytest.fixture(scope="module")
def run(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    archive, bundle = folder / "model.tar.gz", folder / "bundle"
    done = train(folder, recordings, "--archive", str(archive), "--bundle", str(bundle))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return Run(folder / "model", archive, bundle, done.stdout)


def test_every_epoch_and_fold_is_logged_as_sagemaker_metrics(run: Run) -> None:
    assert len(re.findall(r"^fold [12]/2: epoch=[12];", run.log, re.MULTILINE)) == 4
    assert len(re.findall(r"\bvalidation_mae=([0-9.eE+-]+);", run.log)) == 5  # and once for the whole
    first, second = (float(value) for value in re.findall(r"^final: .*train_mae=([0-9.]+);", run.log, re.MULTILINE))
    assert second < first


def test_the_archive_holds_weights_statistics_and_the_bundles_draft(run: Run) -> None:
    with tarfile.open(run.archive) as tar:
        contents = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
    samples, others = {"calibration.npy", "evaluation.npy"}, {"bundle.json", "metrics.json", "model.pth"}
    assert set(contents) == {"mean.npy", "raw_std.npy", "std.npy", *samples, *others}
    assert contents == {path.name: path.read_bytes() for path in run.model_dir.iterdir()}
    assert np.load(io.BytesIO(contents["std.npy"])).shape == (6,)
    metrics = json.loads(contents["metrics.json"])
    assert list(metrics["thresholds"]) == list(FEATURES)
    windows = [np.load(io.BytesIO(contents[name])) for name in sorted(samples)]
    assert [each.shape for each in windows] == [(64, 6, 10, 10), (128, 6, 10, 10)]
    assert len(np.unique(np.concatenate(windows), axis=0)) == 192, "those to judge by are others"
    assert all(metrics["thresholds"][name] > 1.25 * metrics["healthy_mae"][name] for name in FEATURES)


def test_the_bundle_runs_on_what_the_edge_feeds_it(run: Run) -> None:
    bundle = models.load(run.bundle)
    assert (bundle.manifest.name, bundle.manifest.version) == ("WindTurbine", "1.2.3")
    features = TurbineFeatures(Statistics.of(bundle))
    for reading, _ in zip(readings(9), range(500), strict=False):
        features.push(reading)
    windows = features.windows()
    (reconstruction,) = models.open_session(bundle, threads=1).run(None, {"input": windows})
    assert reconstruction.shape == windows.shape
    assert (errors(windows, reconstruction) < bundle.manifest.thresholds["mae"]).all()


def test_onnx_runtime_and_pytorch_give_the_same(run: Run) -> None:
    windows = np.random.default_rng(0).normal(size=(5, 6, 10, 10)).astype(np.float32)
    np.save(run.bundle.parent / "windows.npy", windows)
    program = (
        "import sys, autoencoder, numpy, pathlib, torch; folder = pathlib.Path(sys.argv[1]);"
        "model = autoencoder.load(folder / 'model' / 'model.pth');"
        "out = model(torch.from_numpy(numpy.load(folder / 'windows.npy'))).detach().numpy();"
        "numpy.save(folder / 'torch.npy', out)"
    )
    done = training_support.run("torch._dynamo", "-c", program, run.bundle.parent, cwd=ROOT / "cloud/training")
    assert done.returncode == 0, done.stderr
    (reconstruction,) = models.open_session(models.load(run.bundle)).run(None, {"input": windows})
    np.testing.assert_allclose(reconstruction, np.load(run.bundle.parent / "torch.npy"), atol=1e-5)


def test_training_again_gives_the_same_bytes(run: Run, recordings: Path, tmp_path: Path) -> None:
    again = tmp_path / "model.tar.gz"
    done = train(tmp_path, recordings, "--archive", str(again))
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == run.archive.read_bytes()
