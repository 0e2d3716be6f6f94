"""Files in which a device tells that its CPU is slowed down."""

from pathlib import Path

from edgeml.place import Place

COOLING = "sys/class/thermal/cooling_device"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
COUNT = "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count"
PACKAGE = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"


def files(root: Path, contents: dict[str, str]) -> Place:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Place(root)
