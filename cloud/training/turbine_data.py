"""Recordings of the wind turbine as training data, by the very code that runs at the edge."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeml.turbine import FEATURES, FIELDS, RING, STEP, TAIL, WINDOW, Statistics, TurbineFeatures, Windows, extract

Recording = npt.NDArray[Any]  # [readings, FIELDS]

STRIDE = 20  # readings between two cuts


def read_recordings(folder: Path) -> list[Recording]:
    """Every *.csv of `folder`, in order of name: a header, then FIELDS numbers a line. Raises SystemExit if none."""
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise SystemExit(f"{folder}: no *.csv to train on")
    return [np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(FIELDS), ndmin=2) for path in paths]


def features(recording: Recording) -> npt.NDArray[Any]:
    """[readings, 6], as FEATURES names them."""
    return np.array([extract(reading) for reading in recording.tolist()])


def cut(recording: Recording, statistics: Statistics, stride: int = STRIDE) -> Windows:
    """What the edge sees after every `stride` readings: [cuts, windows of one cut, 6, 10, 10]."""
    ring = TurbineFeatures(statistics)
    cuts = []
    for index, reading in enumerate(recording.tolist()):
        ring.push(reading)
        if ring.ready and index % stride == 0:
            cuts.append(ring.windows())
    return np.array(cuts, np.float32).reshape(-1, (TAIL - WINDOW) // STEP + 1, len(FEATURES), 10, 10)


def prepare(recordings: Sequence[Recording], stride: int = STRIDE) -> tuple[Windows, Statistics]:
    """The cuts of all recordings, normalised, and the statistics that did it. SystemExit if all are too short."""
    raw_std = np.concatenate([features(recording) for recording in recordings]).std(axis=0)
    unscaled = Statistics(np.zeros(len(FEATURES)), np.ones(len(FEATURES)), raw_std)
    cuts = np.concatenate([cut(recording, unscaled, stride) for recording in recordings])
    if not len(cuts):
        raise SystemExit(f"recordings of more than {RING} readings are needed")
    mean, std = (getattr(cuts, name)(axis=(0, 1, 3, 4), dtype=np.float64) for name in ("mean", "std"))
    normal = (cuts - mean[:, None, None]) / std[:, None, None]
    return normal.astype(np.float32), Statistics(mean, std, raw_std)
