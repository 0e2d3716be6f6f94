"""A small wind turbine whose sensors publish on `turbine/raw`, with faults that can be switched on.

    python -m localdev.simulators.turbine --port 1883 --rate 20 --fault voltage_drop --fault-after 1200
    python -m localdev.simulators.turbine --csv healthy.csv --count 144000

Wind is turbulent, the nacelle turns after it, the rotor follows with its inertia above the cut-in wind, the generator
gives a voltage in proportion, and the tower bends and vibrates. Means and deviations are those of a real small
turbine's recordings (roll, pitch, yaw, anemometer and rotor in revolutions/s, volts), except that the real yaw goes
round the full circle.
"""

import argparse
import contextlib
import itertools
import math
import threading
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from localdev.mqtt_end import let_go

TOPIC: Final = "turbine/raw"
DT: Final = 0.05  # seconds between two readings
GRAVITY: Final = 9.81
COLUMNS: Final = (
    *("timestamp_ms", "free_memory", "rotor_rps", "wind_rps", "voltage", "qw", "qx", "qy", "qz"),
    *("gyro_x", "gyro_y", "gyro_z", "accel_x", "accel_y", "accel_z"),
    *("gearbox_temperature", "ambient_temperature", "humidity", "pressure", "gas"),
)

WIND, WIND_STD, WIND_MEMORY_S = 2.154, 0.354, 20.0  # anemometer revolutions/s
CUT_IN, ROTOR_PER_WIND, ROTOR_INERTIA_S = 1.05, 1.46, 1.5
VOLTS_PER_RPS = 29.7
YAW, YAW_STD, YAW_MEMORY_S, VANE_LAG_S = -0.107, 0.48, 60.0, 3.0
ROLL, ROLL_STD, SWAY_MEMORY_S, PITCH, PITCH_PER_THRUST = -0.008, 0.009, 8.0, 0.0012, 0.022
NOISE: Final = {"roll": 0.013, "pitch": 0.013, "wind": 0.16, "rotor": 0.30, "voltage": 12.0}
WANDER_BOUND: Final = 2.5  # deviations; the site has no storms and a prevailing wind

MISALIGNMENT = 0.8  # rad between wind and nacelle
DROPPED_VOLTAGE = 0.35  # of the healthy one
IMBALANCE = 0.07  # rad of tower swing at the mean rotor speed; grows with the square of the speed


class Fault(StrEnum):
    NONE = "none"
    YAW_MISALIGNMENT = "yaw_misalignment"  # the nacelle no longer faces the wind: slow rotor, odd heading
    VOLTAGE_DROP = "voltage_drop"  # a generator phase fails: the rotor turns, the voltage is missing
    ROTOR_IMBALANCE = "rotor_imbalance"  # ice on a blade: the tower swings once per revolution


class Turbine:
    """The turbine's state. Equal seeds give equal wind and noise, whichever faults are switched and when."""

    def __init__(self, seed: int = 1) -> None:
        self._rng = np.random.default_rng(seed)
        self._steps = 0
        self._wind = WIND
        self._direction = YAW
        self._nacelle = YAW
        self._rotor = ROTOR_PER_WIND * (WIND - CUT_IN)
        self._angle = 0.0
        self._sway = 0.0
        self._previous = (0.0, 0.0, YAW)
        self._gearbox = 40.0

    def read(self, fault: Fault = Fault.NONE) -> tuple[float, ...]:
        """The next reading, DT later: 20 numbers in the order of COLUMNS."""
        noise = self._rng.normal(size=16).tolist()  # Python reckons faster with its own numbers than with NumPy's
        self._wind = _wander(self._wind, WIND, WIND_STD, WIND_MEMORY_S, noise[0])
        self._direction = _wander(self._direction, YAW, YAW_STD, YAW_MEMORY_S, noise[1])
        self._sway = _wander(self._sway, 0.0, ROLL_STD, SWAY_MEMORY_S, noise[2])
        offset = MISALIGNMENT if fault is Fault.YAW_MISALIGNMENT else 0.0
        self._nacelle += (self._direction + offset - self._nacelle) * DT / VANE_LAG_S
        # Only the wind's part along the rotor's axis drives it.
        facing = self._wind * math.cos(self._direction - self._nacelle)
        target = max(0.0, ROTOR_PER_WIND * (facing - CUT_IN))
        self._rotor += (target - self._rotor) * DT / ROTOR_INERTIA_S
        self._angle = (self._angle + math.tau * self._rotor * DT) % math.tau
        self._gearbox += (25 + 12 * self._rotor - self._gearbox) * DT / 300
        self._steps += 1
        return self._sensed(fault, noise)

    def _sensed(self, fault: Fault, noise: list[float]) -> tuple[float, ...]:
        swing = IMBALANCE * (self._rotor / 1.61) ** 2 if fault is Fault.ROTOR_IMBALANCE else 0.0
        volts = VOLTS_PER_RPS * self._rotor * (DROPPED_VOLTAGE if fault is Fault.VOLTAGE_DROP else 1.0)
        roll = ROLL + self._sway + swing * math.sin(self._angle) + NOISE["roll"] * noise[3]
        pitch = PITCH + PITCH_PER_THRUST * (self._wind - WIND) + swing * math.cos(self._angle) / 2
        pitch += NOISE["pitch"] * noise[4]
        turned = tuple(
            (now - before) / DT for now, before in zip((roll, pitch, self._nacelle), self._previous, strict=True)
        )
        self._previous = (roll, pitch, self._nacelle)
        return (
            round(self._steps * DT * 1000),
            20480 + 16 * (self._steps % 8),
            max(0.0, self._rotor + NOISE["rotor"] * noise[5]),
            max(0.0, self._wind + NOISE["wind"] * noise[6]),
            max(0.0, volts + NOISE["voltage"] * noise[7]),
            *quaternion(roll, pitch, self._nacelle),
            *(math.degrees(rate) for rate in turned),
            GRAVITY * -math.sin(pitch) + 0.05 * noise[8],
            GRAVITY * math.sin(roll) * math.cos(pitch) + 0.05 * noise[9],
            GRAVITY * math.cos(roll) * math.cos(pitch) + 0.05 * noise[10],
            self._gearbox + 0.1 * noise[11],
            18 + 0.1 * noise[12],
            55 + 0.3 * noise[13],
            1013.2 + 0.2 * noise[14],
            160 + noise[15],
        )


def _wander(value: float, mean: float, std: float, memory_s: float, noise: float) -> float:
    """One step of an Ornstein-Uhlenbeck process: `std` about `mean`, forgetting in `memory_s` seconds, bounded."""
    kept = math.exp(-DT / memory_s)
    value = mean + (value - mean) * kept + std * math.sqrt(1 - kept * kept) * noise
    return min(mean + WANDER_BOUND * std, max(mean - WANDER_BOUND * std, value))


def quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """w, x, y, z of rotations by yaw about z, then pitch about y, then roll about x, in radians."""
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(angle / 2), math.sin(angle / 2)) for angle in (roll, pitch, yaw))
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def readings(seed: int = 1, fault: Fault = Fault.NONE, fault_after: int = 0) -> Iterator[tuple[float, ...]]:
    """Endless readings; `fault` sets in after `fault_after` of them."""
    turbine = Turbine(seed)
    for index in itertools.count():
        yield turbine.read(fault if index >= fault_after else Fault.NONE)


def line(reading: tuple[float, ...]) -> str:
    """A reading as the message that the turbine's controller sends."""
    return ",".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in reading)


class Publisher:
    """Publishes `rate` readings per second from a thread; `published` counts them.

    `fault` may be switched at any time; `schedule` switches it before the reading of that number.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        rate: float = 1 / DT,
        seed: int = 1,
        topic: str = TOPIC,
        schedule: Mapping[int, Fault] | None = None,
        timeout: float = 10.0,
    ) -> None:
        """Connects. Raises OSError when no broker answers, TimeoutError when it does not accept within `timeout`."""
        self.fault = Fault.NONE
        self.published = 0
        self._schedule = schedule or {}
        self._period = 1 / rate
        self._turbine = Turbine(seed)
        self._topic = topic
        self._stopping = threading.Event()
        connected = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"turbine-{seed}")
        self._client.on_connect = lambda *_: connected.set()
        self._client.connect(host, port)
        self._client.loop_start()
        if not connected.wait(timeout):
            let_go(self._client)
            raise TimeoutError(f"MQTT broker {host}:{port} did not accept the connection within {timeout} s")
        self._thread = threading.Thread(target=self._run, name="turbine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(5)
        let_go(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            self.fault = self._schedule.get(self.published, self.fault)
            self._client.publish(self._topic, line(self._turbine.read(self.fault)))
            self.published += 1
            due += self._period


def write_csv(file: TextIO, count: int, seed: int, fault: Fault, fault_after: int) -> None:
    """A header and `count` readings."""
    file.write(",".join(COLUMNS) + "\n")
    for reading in itertools.islice(readings(seed, fault, fault_after), count):
        file.write(line(reading) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulates a wind turbine.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--topic", default=TOPIC)
    parser.add_argument("--rate", type=float, default=1 / DT, help="messages per second")
    parser.add_argument("--count", type=int, default=0, help="stop after about so many readings; 0: never")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fault", type=Fault, choices=list(Fault), default=Fault.NONE)
    parser.add_argument("--fault-after", type=int, default=0, metavar="N", help="readings before the fault sets in")
    parser.add_argument("--csv", default="", metavar="FILE", help="write a file and publish nothing")
    options = parser.parse_args()
    if options.csv:
        with Path(options.csv).open("w", encoding="utf-8") as file:
            write_csv(file, options.count or 10_000, options.seed, options.fault, options.fault_after)
        return
    schedule = {options.fault_after: options.fault}
    with (
        contextlib.suppress(KeyboardInterrupt),
        Publisher(
            options.host, options.port, rate=options.rate, seed=options.seed, topic=options.topic, schedule=schedule
        ) as publisher,
    ):
        while not options.count or publisher.published < options.count:
            time.sleep(min(0.05, 1 / options.rate))


if __name__ == "__main__":
    main()
