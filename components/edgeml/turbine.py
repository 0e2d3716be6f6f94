"""From the readings of a wind turbine to the windows that the anomaly model takes, and to its errors.

The Inferencer and cloud/training share this very code, so that the model sees at the edge what it saw when it learnt.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pywt

from edgeml.bundle import Bundle
from edgeml.errors import BackendError, BundleError
from edgeml.numbers import measured

Vector = npt.NDArray[np.float64]
Windows = npt.NDArray[np.float32]

FIELDS: Final = 20  # of a reading
ROTOR, WIND, VOLTAGE, QW, QX, QY, QZ = range(2, 9)  # the fields in use: two rates in 1/s, volts, a quaternion
FEATURES: Final = ("roll", "pitch", "yaw", "wind_rps", "rotor_rps", "voltage")

LARGEST: Final = 1e9  # of a field: a wilder one would leave nothing finite for the next RING readings
RING: Final = 500  # readings that the denoising looks back on
WINDOW: Final = 100
STEP: Final = 10
TAIL: Final = WINDOW + STEP  # the newest readings, which become windows

WAVELET: Final = pywt.Wavelet("db6")
LEVELS: Final = 5
# The universal threshold of Donoho and Johnstone for RING samples, to be multiplied by the noise's deviation.
UNIVERSAL: Final = math.sqrt(2 * math.log2(RING))


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of the training data, one number per feature: noise level before, mean and deviation after denoising."""

    mean: Vector
    std: Vector
    raw_std: Vector

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if values.shape != (len(FEATURES),) or not np.isfinite(values).all():
                raise BundleError(f"{name}: expected {len(FEATURES)} finite numbers, found {values.tolist()}")
        if not (self.std > 0).all():
            raise BundleError(f"std: every number must be above 0, found {self.std.tolist()}")

    @classmethod
    def of(cls, bundle: Bundle) -> "Statistics":
        """From mean.npy, std.npy and raw_std.npy of a bundle. Raises BundleError."""
        arrays = (bundle.array(f"{name}.npy").astype(np.float64) for name in ("mean", "std", "raw_std"))
        return cls(*arrays)


class TurbineFeatures:
    """The last RING readings as features. `statistics` may be replaced when another model takes over."""

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics
        self._count = 0
        # Every reading is written twice, RING apart, so that the last RING of them always lie in one piece.
        self._ring = np.zeros((len(FEATURES), 2 * RING))

    @property
    def ready(self) -> bool:
        return self._count >= RING

    def push(self, reading: Sequence[str | float]) -> None:
        """Takes one reading of FIELDS numbers. Raises BackendError, and takes nothing, when it is malformed."""
        features = extract(reading)
        slot = self._count % RING
        self._ring[:, slot] = features
        self._ring[:, slot + RING] = features
        self._count += 1

    def windows(self) -> Windows:
        """The newest TAIL readings, denoised and normalised, as overlapping windows [n, 6, 10, 10].

        The last window ends with the newest reading. n is 0 until RING readings have come.
        """
        if not self.ready:
            return np.empty((0, len(FEATURES), 10, 10), np.float32)
        start = self._count % RING
        clean = denoise(self._ring[:, start : start + RING], self.statistics.raw_std)[:, -TAIL:]
        normal = (clean - self.statistics.mean[:, None]) / self.statistics.std[:, None]
        cuts = [normal[:, start : start + WINDOW] for start in range(0, TAIL - WINDOW + 1, STEP)]
        return np.stack(cuts).astype(np.float32).reshape(-1, len(FEATURES), 10, 10)


def extract(reading: Sequence[str | float]) -> tuple[float, ...]:
    """The FEATURES of one reading. Raises BackendError naming the field that is wrong."""
    if len(reading) != FIELDS:
        raise BackendError(f"a turbine reading has {FIELDS} fields, got {len(reading)}")
    try:
        rotor, wind, voltage, w, x, y, z = numbers = [
            measured(value.strip() if isinstance(value, str) else value) for value in reading[ROTOR : QZ + 1]
        ]
        if max(numbers) > LARGEST or min(numbers) < -LARGEST:
            raise ValueError(f"expected at most {LARGEST:g}, got {numbers}")
    except ValueError as error:
        raise BackendError(
            f"fields {ROTOR} to {QZ} of a turbine reading must be numbers: {error}; all must be finite"
        ) from error
    return (*euler(x, y, z, w), wind, rotor, voltage)


def euler(x: float, y: float, z: float, w: float) -> tuple[float, float, float]:
    """Roll, pitch and yaw in radians (rotations about x, y and z, applied in the order z, y, x) of a quaternion."""
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = math.asin(min(1.0, max(-1.0, 2 * (w * y - z * x))))
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return roll, pitch, yaw


def denoise(signals: npt.NDArray[np.float64], noise: Vector) -> npt.NDArray[np.float64]:
    """`signals` [features, RING] with every wavelet coefficient drawn towards zero by its feature's threshold."""
    threshold = (noise * UNIVERSAL)[:, None]
    levels: list[Any] = pywt.wavedec(signals, WAVELET, level=LEVELS)
    return np.asarray(pywt.waverec([level - level.clip(-threshold, threshold) for level in levels], WAVELET))


def errors(windows: Windows, reconstruction: Windows) -> Vector:
    """Mean absolute error of each feature over all windows: [n, 6, 10, 10] twice -> [6]."""
    return np.asarray(np.abs(windows - reconstruction).mean(axis=(0, 2, 3), dtype=np.float64))
