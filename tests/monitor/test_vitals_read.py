"""What is read of the device, from folders like /sys and /proc of real ones, and from those of strange ones."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeml.place import Place
from monitor.vitals import disk, memory, network, temperature, voltage
from monitor.vitals.memory import Memory
from monitor.vitals.network import Network
from monitor.vitals.temperature import Temperature
from monitor.vitals.voltage import Voltage
from monitor.vitals.wear import DAY_S, SECTOR, Disk, Wear

ZONE, CHIP, COOLING = "sys/class/thermal/thermal_zone", "sys/class/hwmon/hwmon", "sys/class/thermal/cooling_device"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
ROUTE = "{}\t{}\t010200C0\t{}\t0\t0\t0\t{}\t0\t0\t0\n"
ROUTE_6 = "{target} {size} {none} 00 {none} 00000400 00000001 00000000 {flags} {name}\n"
HIGHEST = "f" * 32

Files = dict[str, str]


def place(root: Path, files: Files) -> Place:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Place(root)


def _route_6(name: str, target: str = "0" * 32, size: str = "00", flags: str = "00000003") -> str:
    return ROUTE_6.format(target=target, size=size, none="0" * 32, flags=flags, name=name)


READ: dict[str, tuple[Callable[[Place], Any], Files, Any]] = {
    "a Raspberry Pi's zone": (
        temperature.read,
        {f"{ZONE}0/type": "cpu-thermal\n", f"{ZONE}0/temp": "48312\n", FIRMWARE: "0\n"},
        Temperature(48.312, throttled=False),
    ),
    "the hottest of several": (
        temperature.read,
        {f"{ZONE}0/type": "CPU-therm", f"{ZONE}0/temp": "50000", f"{ZONE}1/type": "soc0", f"{ZONE}1/temp": "51500"},
        Temperature(51.5, None),
    ),
    "a PC's chip": (
        temperature.read,
        {f"{CHIP}3/name": "coretemp\n", f"{CHIP}3/temp1_input": "61000\n", f"{CHIP}3/temp2_input": "62000\n"},
        Temperature(62.0, None),
    ),
    "not the CPU's": (
        temperature.read,
        {f"{ZONE}0/type": "iwlwifi_1", f"{ZONE}0/temp": "70000", f"{CHIP}0/name": "nvme", f"{CHIP}0/temp1_input": "1"},
        None,
    ),
    "off, broken, absent": (
        temperature.read,
        {
            f"{ZONE}0/type": "cpu",
            f"{ZONE}0/temp": "",
            f"{ZONE}1/type": "cpu",
            f"{ZONE}1/temp": "-273150",
            f"{ZONE}2/type": "cpu",
            f"{ZONE}2/temp": "255000000",
            f"{ZONE}3/type": "cpu",
        },
        None,
    ),
    "slowed down by heat": (
        temperature.read,
        {f"{COOLING}0/type": "thermal-cpufreq-0", f"{COOLING}0/cur_state": "2"},
        Temperature(None, throttled=True),
    ),
    "a fan that turns": (temperature.read, {f"{COOLING}0/type": "pwm-fan", f"{COOLING}0/cur_state": "2"}, None),
    "slowed down by the firmware": (temperature.read, {FIRMWARE: "0x8\n"}, Temperature(None, throttled=True)),
    "slowed down before": (temperature.read, {FIRMWARE: "e0000\n"}, Temperature(None, throttled=False)),
    "low voltage now": (voltage.read, {FIRMWARE: "50005\n"}, Voltage(low=True, was_low=True)),
    "low voltage before": (voltage.read, {FIRMWARE: "50000\n"}, Voltage(low=False, was_low=True)),
    "enough voltage": (voltage.read, {FIRMWARE: "0\n"}, Voltage(low=False, was_low=False)),
    "voltage of another model": (
        voltage.read,
        {"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "1"},
        Voltage(low=True, was_low=True),
    ),
    "an alarm": (
        voltage.read,
        {f"{CHIP}1/name": "rpi_volt\n", f"{CHIP}1/in0_lcrit_alarm": "1\n"},
        Voltage(low=True, was_low=True),
    ),
    "no alarm": (
        voltage.read,
        {f"{CHIP}1/name": "rpi_volt\n", f"{CHIP}1/in0_lcrit_alarm": "0\n"},
        Voltage(low=False, was_low=False),
    ),
    "another chip's alarm": (voltage.read, {f"{CHIP}1/name": "nct6775", f"{CHIP}1/in0_lcrit_alarm": "1"}, None),
    "voltage that is no number": (voltage.read, {FIRMWARE: "throttled=0x0"}, None),
    "memory": (
        memory.read,
        {
            "proc/meminfo": "MemTotal:        3884392 kB\nMemFree:          99999 kB\nMemAvailable:    2000000 kB\n",
            "proc/pressure/memory": "some avg10=9.00 avg60=8.00 total=1\nfull avg10=0.00 avg60=1.25 avg300=0 total=1",
        },
        Memory(3884392 * 1024, 2000000 * 1024, 1.25),
    ),
    "memory without pressure": (
        memory.read,
        {"proc/meminfo": "MemTotal: 100 kB\nMemAvailable: 50 kB"},
        Memory(102400, 51200, None),
    ),
    "an old kernel's memory": (memory.read, {"proc/meminfo": "MemTotal: 100 kB\nMemFree: 50 kB"}, None),
    "no memory at all": (memory.read, {"proc/meminfo": "MemTotal: 0 kB\nMemAvailable: 0 kB"}, None),
    "a way out": (
        network.ways,
        {
            "proc/net/route": ROUTES
            + ROUTE.format("eth0", "00000000", "0003", "00000000")
            + ROUTE.format("eth1", "000200C0", "0001", "00FFFFFF"),
            "sys/class/net/eth0/carrier": "1\n",
        },
        {"eth0": True},
    ),
    "a way out without a cable": (
        network.ways,
        {
            "proc/net/route": ROUTES + ROUTE.format("eth0", "00000000", "0003", "00000000"),
            "sys/class/net/eth0/carrier": "0\n",
        },
        {"eth0": False},
    ),
    "no way out": (network.ways, {"proc/net/route": ROUTES}, {}),
    "half of everything is no default": (
        network.ways,
        {"proc/net/route": ROUTES + ROUTE.format("tun0", "00000000", "0003", "00000080")},
        {},
    ),
    "a way out by IPv6": (
        network.ways,
        {"proc/net/route": ROUTES, "proc/net/ipv6_route": _route_6("wwan0") + _route_6("eth9", HIGHEST, "80")},
        {"wwan0": True},
    ),
    "IPv6 that refuses": (network.ways, {"proc/net/ipv6_route": _route_6("lo", flags="00200201")}, {}),
    "no table of routes": (network.ways, {}, None),
    "a table that is none": (network.ways, {"proc/net/route": "x\n" * 9 + "a b c d e f g h\n"}, {}),
}


@pytest.mark.parametrize("case", READ)
def test_each_reading(tmp_path: Path, case: str) -> None:
    read, files, expected = READ[case]
    assert read(place(tmp_path, files)) == expected


@pytest.mark.parametrize(
    "read", [temperature.read, voltage.read, memory.read, network.ways, lambda p: Wear(p).read(9e9)]
)
def test_a_device_that_tells_nothing_says_nothing(tmp_path: Path, read: Callable[[Place], Any]) -> None:
    assert read(Place(tmp_path)) is None
    folder = {"sys/class/thermal/thermal_zone0/temp/x": "", "proc/meminfo/x": "", f"{FIRMWARE}/x": ""}
    assert read(place(tmp_path, folder)) is None


def stat(sectors: int) -> str:
    return f"  100 0 800 5 200 0 {sectors} 9 0 10 14\n"


DISKS = {
    "mmcblk0": Disk("mmcblk0", 16 << 30, life_used=20, eol=1),
    "sda": Disk("sda", 16 << 30),
    "nvme0n1": Disk("nvme0n1", 16 << 30),
}
NO_DISKS = ["loop0", "ram0", "zram0", "dm-0", "md0", "sr0", "mmcblk0boot0", "mmcblk0rpmb"]


def test_disks_are_told_apart(tmp_path: Path) -> None:
    files: Files = {}
    for name in [*DISKS, *NO_DISKS]:
        files |= {f"sys/block/{name}/size": f"{(16 << 30) // SECTOR}\n", f"sys/block/{name}/stat": stat(0)}
    files |= {f"sys/block/mmcblk0/device/{name}": text for name, text in EMMC.items()}
    assert Wear(place(tmp_path, files)).read(0.0) == [DISKS[name] for name in sorted(DISKS)]


EMMC = {"life_time": "0x01 0x02\n", "pre_eol_info": "0x01\n"}
STRANGE = {
    "no size": {"size": "", "stat": stat(1)},
    "no counters": {"size": "8", "stat": ""},
    "an old kernel's counters": {"size": "8", "stat": "1 2 3 4"},
    "counters that are none": {"size": "8", "stat": "a b c d e f g h"},
    "negative ones": {"size": "8", "stat": "1 1 1 1 1 1 -5 1"},
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_disk_that_tells_nothing_is_passed_over(tmp_path: Path, case: str) -> None:
    files = {f"sys/block/sda/{name}": text for name, text in STRANGE[case].items()}
    assert Wear(place(tmp_path, files)).read(9e9) is None


@pytest.mark.parametrize(
    ("life_time", "used"),
    [("0x00 0x00", None), ("0x01 0x01", 10), ("0x0B 0x01", 110), ("0x00 0x09", 90), ("0xff 0xff", None), ("", None)],
)
def test_steps_of_a_life(tmp_path: Path, life_time: str, used: int | None) -> None:
    files = {"size": "8", "stat": stat(0), "device/life_time": life_time}
    (disk,) = Wear(place(tmp_path, {f"sys/block/mmcblk0/{name}": text for name, text in files.items()})).read(0.0) or []
    assert disk.life_used == used


def test_what_is_written_counts_over_a_day_once_one_is_known(tmp_path: Path) -> None:
    wear = Wear(place(tmp_path, {"sys/block/sda/size": "8"}))

    def per_day(uptime: float, written: int) -> float:
        place(tmp_path, {"sys/block/sda/stat": stat(written // SECTOR)})
        (disk,) = wear.read(uptime) or []
        return disk.per_day

    much = 512 * 86400
    assert per_day(600, much) == much  # what is done after boot once is no habit
    assert per_day(2 * DAY_S, much) == much / 2  # nobody looked for a day: the mean since boot
    for hour in range(1, 24):
        assert 0 < per_day(2 * DAY_S + hour * 3600, much) < much / 2
    assert per_day(3 * DAY_S, much) == 0  # nothing more in a day
    assert per_day(3 * DAY_S + 60, 0) == 0  # another disk of that name
    assert per_day(3 * DAY_S + 120, 512) == 512


def test_disks_are_of_one_file_system_each(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    found = disk.read([tmp_path, tmp_path / "work", tmp_path / "gone"])
    assert found is not None
    assert [space.folder for space in found] == [str(tmp_path)]
    assert 0 < found[0].free < found[0].size
    assert disk.read([tmp_path / "gone"]) is None


def test_a_disk_that_cannot_fill_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs("/")
    read_only = os.statvfs_result([*real[:8], real.f_flag | os.ST_RDONLY, *real[9:]])
    monkeypatch.setattr(os, "statvfs", lambda folder: read_only)
    assert disk.read([Path("/")]) is None


@pytest.mark.parametrize("host", ["a.iot.us-east-1.amazonaws.com", "x"])
def test_names_of_hosts(host: str) -> None:
    assert network.HOST.fullmatch(host)


@pytest.mark.parametrize("host", ["", "a b", "-x", "x\n", "a" * 300, "http://x", "x:443", "é.example"])
def test_what_is_no_name_of_a_host(host: str) -> None:
    assert not network.HOST.fullmatch(host)


def test_the_network_of_this_machine() -> None:
    network.resolve("localhost")
    with pytest.raises(OSError, match=r"."):
        network.resolve("no-such-host.invalid")
    assert isinstance(Network(network.ways(Place()) or {}), Network)
