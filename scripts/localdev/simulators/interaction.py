"""People who work beside a robot: how long an interaction takes, and what is known before it begins.

    python -m localdev.simulators.interaction --csv interactions.csv --count 2000

Per part, a person waits for the robot's arm, reaches for the part (Fitts' law: the farther and the finer, the
slower), and handles it (the heavier, the slower). Experience shortens this by the power law of practice; a long shift
and a loud hall lengthen it.
"""

import argparse
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

FEATURES: Final = (
    *("parts", "part_mass_kg", "reach_m", "tolerance_mm", "robot_speed_mps"),
    *("experience_h", "hours_on_shift", "noise_db"),
)
TARGET: Final = "duration_s"

FITTS_A, FITTS_B = 0.3, 0.22  # seconds, seconds per bit
HANDLING_S, HANDLING_S_PER_KG = 1.8, 0.45
PRACTICE = 0.12  # exponent of the power law
SPREAD = 0.06  # of the logarithm of the duration


def interactions(seed: int = 1) -> Iterator[tuple[float, ...]]:
    """Endless rows: FEATURES, then the measured duration in seconds. Equal seeds give equal rows."""
    rng = np.random.default_rng(seed)
    while True:
        features = (
            float(rng.integers(1, 13)),
            rng.gamma(2.0, 0.6) + 0.05,
            rng.uniform(0.2, 1.6),
            math.exp(rng.uniform(math.log(0.2), math.log(10))),
            rng.uniform(0.15, 1.0),
            rng.gamma(1.2, 120.0),
            rng.uniform(0.0, 8.0),
            rng.normal(74.0, 5.0),
        )
        yield (*features, expected_duration(*features) * math.exp(SPREAD * rng.normal()))


def expected_duration(
    parts: float,
    mass: float,
    reach: float,
    tolerance: float,
    speed: float,
    experience: float,
    shift: float,
    noise: float,
) -> float:
    """Seconds, in the units of FEATURES."""
    fitts = FITTS_A + FITTS_B * math.log2(2 * reach * 1000 / tolerance + 1)
    handling = HANDLING_S + HANDLING_S_PER_KG * mass
    practice = math.pow((experience + 8) / 100, -PRACTICE)
    fatigue = 1 + 0.012 * max(0.0, shift - 4) ** 2
    distraction = 1.15 if noise > 80 else 1.0
    return 2.0 + parts * (reach / speed + (fitts + handling) * practice * fatigue * distraction)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulates interactions of people with a robot.")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with options.csv.open("w", encoding="utf-8") as file:
        file.write(",".join((*FEATURES, TARGET)) + "\n")
        for row in itertools.islice(interactions(options.seed), options.count):
            file.write(",".join(f"{value:.6g}" for value in row) + "\n")


if __name__ == "__main__":
    main()
