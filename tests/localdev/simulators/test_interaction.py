import itertools
from pathlib import Path

import numpy as np
import pytest

from localdev.simulators import interaction
from localdev.simulators.interaction import FEATURES, TARGET, expected_duration, interactions

USUAL = (6.0, 1.2, 0.8, 1.0, 0.5, 100.0, 3.0, 70.0)


@pytest.mark.parametrize(
    ("feature", "value"),
    [("parts", 9.0), ("part_mass_kg", 5.0), ("reach_m", 1.5), ("hours_on_shift", 8.0), ("noise_db", 85.0)],
)
def test_what_makes_work_harder_makes_it_longer(feature: str, value: float) -> None:
    harder = list(USUAL)
    harder[FEATURES.index(feature)] = value
    assert expected_duration(*harder) > expected_duration(*USUAL)


@pytest.mark.parametrize(
    ("feature", "value"), [("tolerance_mm", 8.0), ("robot_speed_mps", 1.0), ("experience_h", 400.0)]
)
def test_what_makes_work_easier_makes_it_shorter(feature: str, value: float) -> None:
    easier = list(USUAL)
    easier[FEATURES.index(feature)] = value
    assert expected_duration(*easier) < expected_duration(*USUAL)


def test_equal_seeds_give_equal_rows_scattered_about_the_expectation() -> None:
    rows, again = (np.array(list(itertools.islice(interactions(seed), 2000))) for seed in (2, 2))
    assert (rows == again).all()
    deviation = np.log(rows[:, -1] / [expected_duration(*row[:-1]) for row in rows.tolist()])
    assert abs(deviation.mean()) < 0.01
    assert deviation.std() == pytest.approx(0.06, rel=0.1)


def test_a_csv_file_has_a_header_that_names_the_target_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "interactions.csv"
    monkeypatch.setattr("sys.argv", ["interaction", "--csv", str(path), "--count", "20"])
    interaction.main()
    header, *rows = path.read_text().splitlines()
    assert header.split(",") == [*FEATURES, TARGET]
    assert [len(row.split(",")) for row in rows] == [9] * 20
