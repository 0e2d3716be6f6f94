"""train_tabular.py on simulated interactions, in the venv that has scikit-learn."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml import models
from localdev.simulators.interaction import FEATURES, TARGET, interactions
from support import ROOT
from training_support import needs_training, run

pytestmark = needs_training


def train(folder: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    places = [f"--{name}={folder / name}" for name in ("train", "model-dir", "output-data-dir", "bundle")]
    script = ROOT / "cloud" / "training" / "train_tabular.py"
    return run("skl2onnx", script, *places, f"--archive={folder / 'model.tar.gz'}", *extra)


def write_table(folder: Path, rows: int) -> None:
    (folder / "train").mkdir(exist_ok=True)
    lines = [",".join(f"{value:.6g}" for value in row) for row, _ in zip(interactions(1), range(rows), strict=False)]
    (folder / "train" / "rows.csv").write_text("\n".join([",".join((*FEATURES, TARGET)), *lines, ""]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tabular")
    write_table(folder, 600)
    done = train(folder)
    assert done.returncode == 0, done.stderr
    (folder / "log").write_text(done.stdout)
    return folder


def test_the_table_compares_all_models_best_first(folder: Path) -> None:
    log = (folder / "log").read_text()
    figures = {name: float(value) for name, value in re.findall(r"^(\w+) +([0-9.]+) +[0-9.]+%$", log, re.MULTILINE)}
    assert set(figures) == {"boosting", "knn", "linear", "mean"}
    assert list(figures.values()) == sorted(figures.values())
    assert figures["boosting"] < figures["linear"] < figures["mean"]
    assert set(re.findall(r"\b(\w+)_rmse=[0-9.eE+-]+;", log)) == set(figures)


def test_the_archive_has_samples_of_the_table(folder: Path) -> None:
    table = np.loadtxt(folder / "train" / "rows.csv", np.float32, delimiter=",", skiprows=1)
    some, others = (np.load(folder / "model-dir" / f"{name}.npy") for name in ("calibration", "evaluation"))
    assert (some.shape, others.shape) == ((64, len(FEATURES)), (128, len(FEATURES)))
    assert {*map(tuple, some), *map(tuple, others)} <= set(map(tuple, table[:, :-1]))
    assert not (folder / "bundle" / "calibration.npy").exists()


def test_the_bundle_predicts_durations_it_has_not_seen(folder: Path) -> None:
    bundle = models.load(folder / "bundle")
    assert bundle.manifest.output.parameters == {"features": list(FEATURES), "target": TARGET}
    unseen = np.array([row for row, _ in zip(interactions(2), range(300), strict=False)])
    rows = unseen[:, :-1].astype(np.float32)
    (predicted,) = models.open_session(bundle, threads=1).run(None, {"features": rows})
    error = np.sqrt(np.mean((predicted[:, 0] - unseen[:, -1]) ** 2))
    assert error < 0.35 * unseen[:, -1].std()


@pytest.mark.parametrize(
    ("winner", "target"),
    [("linear", lambda a, b: 3 * a - 2 * b), ("knn", lambda a, b: np.sin(6 * a) * np.cos(6 * b))],
    ids=["linear", "knn"],
)
def test_whichever_model_wins_is_exported(winner: str, target: Callable[[Any, Any], Any], tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    a, b = np.random.default_rng(1).uniform(-1, 1, (2, 800))
    np.savetxt(
        tmp_path / "train" / "rows.csv", np.stack([a, b, target(a, b)], 1), "%.6f", ",", header="a,b,c", comments=""
    )
    done = train(tmp_path, "--trees=2", "--depth=1", "--folds=3")
    assert done.returncode == 0, done.stderr
    bundle = models.load(tmp_path / "bundle")
    assert f", {winner}, " in bundle.manifest.source
    unseen = np.array([[0.3, 0.2]], np.float32)
    (predicted,) = models.open_session(bundle).run(None, {"features": unseen})
    assert predicted[0, 0] == pytest.approx(target(0.3, 0.2), abs=0.15)


def test_tables_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path, 20)
    (tmp_path / "train" / "other.csv").write_text("a,b\n1,2\n")
    done = train(tmp_path)
    assert done.returncode != 0
    assert "found 2 headers" in done.stderr
