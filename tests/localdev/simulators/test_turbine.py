import itertools
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from localdev.cloud.broker import Broker
from localdev.mqtt_end import let_go
from localdev.simulators import turbine
from localdev.simulators.turbine import COLUMNS, DT, Fault, Publisher, Turbine, line, quaternion, readings
from support import eventually

ROTOR, WIND, VOLTAGE = (COLUMNS.index(name) for name in ("rotor_rps", "wind_rps", "voltage"))
# Means and deviations of a real small turbine's recordings.
REAL = {"rotor_rps": (1.6106, 0.6198), "wind_rps": (2.154, 0.3906), "voltage": (47.7938, 26.3817)}


def table(count: int, seed: int = 1, fault: Fault = Fault.NONE, skip: int = 0) -> npt.NDArray[Any]:
    return np.array(list(itertools.islice(readings(seed, fault), skip, skip + count)))


@pytest.fixture(scope="module")
def healthy() -> npt.NDArray[Any]:
    """Twenty-five minutes of a turbine that lacks nothing."""
    return table(30_000)


def test_every_reading_has_twenty_finite_numbers(healthy: npt.NDArray[Any]) -> None:
    assert healthy.shape == (30_000, 20)
    assert np.isfinite(healthy).all()
    assert all(len(line(tuple(row)).split(",")) == 20 for row in healthy[:10].tolist())


@pytest.mark.parametrize(("column", "real"), REAL.items(), ids=REAL)
def test_a_healthy_turbine_is_like_the_real_one(
    healthy: npt.NDArray[Any], column: str, real: tuple[float, float]
) -> None:
    values = healthy[:, COLUMNS.index(column)]
    assert values.mean() == pytest.approx(real[0], rel=0.15)
    assert values.std() == pytest.approx(real[1], rel=0.35)


def test_the_signals_obey_physics(healthy: npt.NDArray[Any]) -> None:
    smooth = np.array([np.convolve(healthy[:, column], np.ones(40) / 40, "valid") for column in (WIND, ROTOR, VOLTAGE)])
    assert np.corrcoef(smooth)[0, 1] > 0.8  # more wind, faster rotor
    assert np.corrcoef(smooth)[1, 2] > 0.95  # faster rotor, more voltage
    lengths = np.linalg.norm(healthy[:, 5:9], axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(healthy[:, 12:15], axis=1), 9.81, atol=0.5)  # gravity and little else


def test_equal_seeds_give_equal_readings_and_others_do_not() -> None:
    assert (table(500, seed=7) == table(500, seed=7)).all()
    assert (table(500, seed=7) != table(500, seed=8)).any()


def test_a_fault_sets_in_where_it_was_asked_for_and_the_wind_stays_the_same() -> None:
    healthy = np.array(list(itertools.islice(readings(3), 400)))
    faulty = np.array(list(itertools.islice(readings(3, Fault.VOLTAGE_DROP, 200), 400)))
    assert (healthy[:200] == faulty[:200]).all()
    assert (healthy[200:, WIND] == faulty[200:, WIND]).all()
    assert faulty[200:, VOLTAGE].mean() < 0.5 * healthy[200:, VOLTAGE].mean()
    assert (healthy[200:, ROTOR] == faulty[200:, ROTOR]).all()


def test_a_misaligned_nacelle_slows_the_rotor() -> None:
    healthy, faulty = (table(4000, 3, fault, skip=1000) for fault in (Fault.NONE, Fault.YAW_MISALIGNMENT))
    assert faulty[:, ROTOR].mean() < 0.6 * healthy[:, ROTOR].mean()


def test_an_unbalanced_rotor_makes_the_tower_swing() -> None:
    healthy, faulty = (table(4000, 3, fault, skip=1000) for fault in (Fault.NONE, Fault.ROTOR_IMBALANCE))
    sideways = COLUMNS.index("accel_y")
    assert faulty[:, sideways].std() > 2 * healthy[:, sideways].std()


def test_a_cured_turbine_is_healthy_again() -> None:
    cured, healthy = Turbine(5), Turbine(5)
    for _ in range(100):
        cured.read(Fault.VOLTAGE_DROP)
        healthy.read()
    assert cured.read() == pytest.approx(healthy.read())


def test_a_level_turbine_facing_north_has_the_unit_quaternion() -> None:
    assert quaternion(0, 0, 0) == (1, 0, 0, 0)
    assert quaternion(0, 0, math.pi) == pytest.approx((0, 0, 0, 1))


def test_readings_are_published_in_order_at_the_rate_and_a_scheduled_fault_sets_in() -> None:
    received: list[str] = []
    with Broker() as broker:
        subscribed = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.on_message = lambda _client, _data, message: received.append(message.payload.decode())
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect("127.0.0.1", broker.port)
        client.subscribe("turbine/raw")
        client.loop_start()
        try:
            assert subscribed.wait(5)
            with Publisher("127.0.0.1", broker.port, rate=500, seed=4, schedule={30: Fault.VOLTAGE_DROP}):
                eventually(lambda: len(received) >= 60, what="60 readings")
        finally:
            let_go(client)
    expected = [line(reading) for reading in itertools.islice(readings(4, Fault.VOLTAGE_DROP, 30), 60)]
    assert received[:60] == expected


def test_no_broker_is_an_error_at_once() -> None:
    with pytest.raises(ConnectionRefusedError):
        Publisher("127.0.0.1", 1)


def test_a_csv_file_has_a_header_and_as_many_readings_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "turbine.csv"
    monkeypatch.setattr("sys.argv", ["turbine", "--csv", str(path), "--count", "50", "--seed", "9"])
    turbine.main()
    header, *rows = path.read_text().splitlines()
    assert header.split(",") == list(COLUMNS)
    assert rows == [line(reading) for reading in itertools.islice(readings(9), 50)]
    assert float(rows[-1].split(",")[0]) == pytest.approx(50 * DT * 1000)
