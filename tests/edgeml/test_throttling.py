"""Whether the CPU is slowed down, from folders like /sys of real devices, and from those of strange ones."""

from pathlib import Path

import pytest

from edgeml.place import Place
from edgeml.throttling import Throttling, is_throttled, throttled
from throttling_support import COOLING, COUNT, FIRMWARE, PACKAGE, files

# what /sys says, and whether the CPU is slowed down
NOW: dict[str, tuple[dict[str, str], bool | None]] = {
    "a Raspberry Pi at full speed": ({FIRMWARE: "0\n"}, False),
    "one that was slowed down before": ({FIRMWARE: "e0000\n"}, False),
    "one with low voltage alone": ({FIRMWARE: "1\n"}, False),
    "capped": ({FIRMWARE: "0x2"}, True),
    "throttled": ({FIRMWARE: "4"}, True),
    "at its soft limit": ({FIRMWARE: "80008\n"}, True),
    "another model's": ({"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "4"}, True),
    "a board that cools by frequency": ({f"{COOLING}0/type": "thermal-cpufreq-0", f"{COOLING}0/cur_state": "3"}, True),
    "an older one": ({f"{COOLING}0/type": "cpufreq-cpu0", f"{COOLING}0/cur_state": "1"}, True),
    "a cool one": ({f"{COOLING}0/type": "cpufreq-cpu0", f"{COOLING}0/cur_state": "0"}, False),
    "a PC of ACPI": ({f"{COOLING}4/type": "Processor", f"{COOLING}4/cur_state": "2"}, True),
    "forced idleness": ({f"{COOLING}4/type": "intel_powerclamp", f"{COOLING}4/cur_state": "25"}, True),
    "none": ({f"{COOLING}4/type": "intel_powerclamp", f"{COOLING}4/cur_state": "-1"}, False),
    "a fan that turns": ({f"{COOLING}0/type": "pwm-fan", f"{COOLING}0/cur_state": "2"}, None),
    "a GPU": ({f"{COOLING}0/type": "devfreq-gpu", f"{COOLING}0/cur_state": "2"}, None),
    "one that only counts": ({COUNT: "17\n"}, None),
    "a governor that saves power": ({"sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "600000"}, None),
    "nonsense": ({FIRMWARE: "throttled=0x4", f"{COOLING}0/type": "cpufreq-0", f"{COOLING}0/cur_state": "hot"}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("kind", NOW)
def test_what_it_is_now(kind: str, tmp_path: Path) -> None:
    said, expected = NOW[kind]
    assert throttled(files(tmp_path, said)) is expected
    assert is_throttled(Place(tmp_path)) is bool(expected)
    assert Throttling(Place(tmp_path)).look() is bool(expected)


@pytest.mark.parametrize(("before", "after", "seen"), [("17", "18", True), ("17", "17", False), ("x", "x", False)])
def test_what_only_counts_is_looked_at_twice(
    before: str, after: str, seen: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = files(tmp_path, {COUNT: before, PACKAGE: "3"})
    monkeypatch.setattr("edgeml.throttling.time.sleep", lambda seconds: files(tmp_path, {COUNT: after}))
    assert is_throttled(place) is seen
    assert not is_throttled(place)


def test_what_was_seen_stays_seen(tmp_path: Path) -> None:
    throttling = Throttling(files(tmp_path, {FIRMWARE: "0"}))
    assert not throttling.look()
    files(tmp_path, {FIRMWARE: "4"})
    assert throttling.look()
    files(tmp_path, {FIRMWARE: "40000"})
    assert throttling.look()
    assert throttling.seen
