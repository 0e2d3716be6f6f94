"""How what was read of the device is judged: nothing wrong, just below, at and just above each limit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from edgeml.clock import EARLIEST, WAIT_S
from edgeml.problems import ADVICE
from monitor.metrics import METRICS, device_metric
from monitor.vitals import clock, core, disk, memory, network, packages, temperature, voltage, wear
from monitor.vitals.check import Seen
from monitor.vitals.clock import Time
from monitor.vitals.core import Core
from monitor.vitals.disk import Space
from monitor.vitals.limits import Limits
from monitor.vitals.memory import Memory
from monitor.vitals.network import Network
from monitor.vitals.temperature import Temperature
from monitor.vitals.voltage import Voltage
from monitor.vitals.wear import Disk

GB = 10**9


@dataclass(frozen=True)
class Threshold:
    """A code and subject, what is read at `value`, and the values: where nothing is wrong, below, at and above.

    `back` is the last value at which what was found still stands, `well` the next one. Where more is better, `below`
    is the value above the limit.
    """

    key: tuple[str, str]
    judge: Callable[..., Seen]
    read: Callable[[float], Any]
    none: float
    below: float
    at: float
    above: float
    back: float
    well: float


def _memory(percent: float) -> Memory:
    return Memory(1000 * 1024, int(percent * 10 * 1024), 0.0)


THRESHOLDS = {
    "temperature": Threshold(
        ("too_hot", "cpu"), temperature.judge, lambda t: Temperature(t, None), 20, 84.9, 85, 85.1, 80.1, 80
    ),
    "memory": Threshold(("memory_low", "memory"), memory.judge, _memory, 90, 5.1, 5, 4.9, 6.9, 7),
    "memory waited for": Threshold(
        ("memory_stalled", "memory"), memory.judge, lambda share: Memory(100, 90, share), 0, 9.9, 10, 10.1, 5.1, 5
    ),
    "disk": Threshold(
        ("disk_low", "/"), disk.judge, lambda free: [Space("/", 1000, int(free * 10))], 90, 5.1, 5, 4.9, 6.9, 7
    ),
    "inodes": Threshold(
        ("disk_low", "/"), disk.judge, lambda files: [Space("/", 1000, 900, files)], 90, 5.1, 5, 4.9, 6.9, 7
    ),
    "written": Threshold(
        ("disk_written", "sda"),
        wear.judge,
        lambda gb: [Disk("sda", 10 * GB, gb * GB)],
        *(0, 2.99, 3, 3.01, 2.71, 2.7),
    ),
    "life": Threshold(
        ("disk_worn", "mmcblk0"),
        wear.judge,
        lambda used: [Disk("mmcblk0", GB, 0.0, int(used))],
        *(10, 79, 80, 81, 76, 75),
    ),
    "packages": Threshold(
        ("packages_large", "packages"),
        packages.judge,
        lambda gb: {"edgeml.A": int(gb * GB) - 1, "edgeml.B": 1},
        *(1, 5.999, 6, 6.001, 5.701, 5.7),
    ),
    "names": Threshold(
        ("no_names", "iot.example"),
        network.judge,
        lambda times: Network({"eth0": True}, "iot.example", int(times), 0.1),
        *(0, 1, 2, 3, 2, 1),
    ),
    "core": Threshold(("core_silent", "core"), core.judge, lambda times: Core("2", int(times), 0.1), 0, 1, 2, 3, 2, 1),
    "clock after boot": Threshold(
        ("clock", "device"),
        clock.judge,
        lambda up: Time(up, EARLIEST, synchronised=False),
        *(0, WAIT_S - 1, WAIT_S, WAIT_S + 1, WAIT_S, WAIT_S - 1),
    ),
    "year": Threshold(
        ("clock", "device"),
        clock.judge,
        lambda wall: Time(9e9, wall, synchronised=True),
        *(2e9, EARLIEST, EARLIEST - 1, 0, EARLIEST - 1, EARLIEST),
    ),
}


def keys(seen: Seen) -> list[tuple[str, str]]:
    return [(finding.code, finding.subject) for finding in seen.findings]


@pytest.mark.parametrize("case", THRESHOLDS)
def test_each_limit(case: str) -> None:
    limit = THRESHOLDS[case]

    def found(value: float, *standing: tuple[str, str]) -> bool:
        seen = limit.judge(limit.read(value), Limits(), set(standing))
        assert keys(seen) in ([], [limit.key])
        assert any(vital.problem for vital in seen.vitals.values()) == bool(seen.findings)
        assert all(vital.label for vital in seen.vitals.values() if vital.problem), "what is wrong is shown"
        assert all(device_metric(name, vital.unit) in METRICS for name, vital in seen.vitals.items())
        return bool(seen.findings)

    assert [found(value) for value in (limit.none, limit.below, limit.at, limit.above)] == [False, False, True, True]
    assert [found(value, limit.key) for value in (limit.at, limit.back, limit.well)] == [True, True, False]


@pytest.mark.parametrize("case", THRESHOLDS)
def test_a_text_stays_while_it_lasts_and_says_what_to_do(case: str) -> None:
    limit = THRESHOLDS[case]
    seen = [limit.judge(limit.read(value), Limits(), set()).findings[0] for value in (limit.at, limit.above)]
    if case not in ("life", "year"):  # a step of a tenth, and a day
        assert seen[0].text == seen[1].text
    assert ADVICE[seen[0].code]


YES_OR_NO: dict[str, tuple[Callable[..., Seen], Any, list[tuple[str, str]]]] = {
    "full speed": (temperature.judge, Temperature(None, throttled=False), []),
    "slowed down": (temperature.judge, Temperature(None, throttled=True), [("throttled", "cpu")]),
    "voltage": (voltage.judge, Voltage(low=False, was_low=False), []),
    "low since boot": (voltage.judge, Voltage(low=False, was_low=True), []),
    "low now": (voltage.judge, Voltage(low=True, was_low=True), [("under_voltage", "power")]),
    "reserve": (wear.judge, [Disk("mmcblk0", GB, eol=1)], []),
    "reserve nearly used": (wear.judge, [Disk("mmcblk0", GB, eol=2)], [("disk_worn", "mmcblk0")]),
    "reserve used": (wear.judge, [Disk("mmcblk0", GB, eol=3, life_used=110)], [("disk_worn", "mmcblk0")]),
    "no reserve told": (wear.judge, [Disk("mmcblk0", GB, eol=0)], []),
    "no route": (network.judge, Network({}), [("no_network", "network")]),
    "no carrier": (network.judge, Network({"eth0": False}), [("no_network", "network")]),
    "one of two": (network.judge, Network({"eth0": False, "wlan0": True}), []),
    "no carrier, so no names": (network.judge, Network({"eth0": False}, "x", 9), [("no_network", "network")]),
    "no name to look up": (network.judge, Network({"eth0": True}, "", 9), []),
    "not yet looked up": (network.judge, Network({"eth0": True}, "x"), []),
    "not yet asked": (core.judge, Core("", 0, None), []),
    "never answered": (core.judge, Core("", 2, None), [("core_silent", "core")]),
    "synchronised": (clock.judge, Time(9e9, EARLIEST, synchronised=True), []),
    "no pressure known": (memory.judge, Memory(100, 90, None), []),
    "each disk by itself": (
        disk.judge,
        [Space("/", 100, 90), Space("/work", 100, 1), Space("/data", 100, 2)],
        [("disk_low", "/work"), ("disk_low", "/data")],
    ),
}


@pytest.mark.parametrize("case", YES_OR_NO)
def test_what_is_so_or_not(case: str) -> None:
    judge, read, expected = YES_OR_NO[case]
    seen = judge(read, Limits(), set())
    assert keys(seen) == expected
    assert all(device_metric(name, vital.unit) in METRICS for name, vital in seen.vitals.items())


def test_limits_are_the_configurations() -> None:
    hot = Temperature(61.0, None)
    assert not temperature.judge(hot, Limits(), set()).findings
    assert temperature.judge(hot, Limits(cpu_celsius=60), set()).findings
