"""Recordings become the windows that the edge would make of them. Needs no PyTorch."""

from pathlib import Path

import numpy as np
import pytest

import turbine_data
from edgeml.turbine import TurbineFeatures
from localdev.simulators.turbine import Fault, write_csv


def record(folder: Path, count: int, seed: int) -> None:
    with (folder / f"{seed}.csv").open("w") as file:
        write_csv(file, count, seed, Fault.NONE, 0)


def test_cuts_are_what_the_edge_would_see(tmp_path: Path) -> None:
    record(tmp_path, 700, 1)
    record(tmp_path, 600, 2)
    recordings = turbine_data.read_recordings(tmp_path)
    cuts, statistics = turbine_data.prepare(recordings, stride=50)
    assert cuts.shape == (4 + 2, 2, 6, 10, 10)  # after 501, 551, ... readings
    edge = TurbineFeatures(statistics)
    for reading in recordings[0][:651].tolist():
        edge.push(reading)
    np.testing.assert_allclose(cuts[3], edge.windows(), atol=1e-4)
    np.testing.assert_allclose(cuts.mean(axis=(0, 1, 3, 4)), 0, atol=1e-4)
    np.testing.assert_allclose(cuts.std(axis=(0, 1, 3, 4)), 1, atol=1e-4)


def test_no_recording_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no \*\.csv"):
        turbine_data.read_recordings(tmp_path)


def test_recordings_that_never_fill_the_ring_are_said(tmp_path: Path) -> None:
    record(tmp_path, 100, 1)
    with pytest.raises(SystemExit, match="more than 500 readings"):
        turbine_data.prepare(turbine_data.read_recordings(tmp_path))
