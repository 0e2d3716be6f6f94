"""Whether the CPU is slowed down, so that it stays within heat and power, as Linux tells.

Source: Documentation/driver-api/thermal/sysfs-api.rst and arch/x86/kernel/cpu/mce/therm_throt.c of Linux;
`vcgencmd get_throttled` of Raspberry Pi's documentation. Frequencies say nothing of it: a governor, or whoever saves
power, lowers them, too.
"""

import re
import time

from edgeml.place import Place

CPU_COOLING = re.compile(r"(thermal-)?cpufreq|Processor|intel_powerclamp")
THROTTLED = 0x2 | 0x4 | 0x8  # of a Raspberry Pi's firmware: capped, throttled, at its soft limit of temperature
BETWEEN_S = 0.2  # two looks at what only counts


def firmware_bits(place: Place) -> int | None:
    """What the firmware says of voltage and speed, as bits; Raspberry Pi's own kernels have it."""
    for file in place.found("sys/devices/platform/soc*/soc*:firmware/get_throttled"):
        return place.number(file, 16)
    return None


def throttled(place: Place) -> bool | None:
    """Whether it is now; None where nothing says so. x86-64 mostly counts alone: see `Throttling`."""
    bits = firmware_bits(place)
    cooling = place.found("sys/class/thermal/cooling_device*")
    states = [place.number(f"{each}/cur_state") for each in cooling if CPU_COOLING.match(place.text(f"{each}/type"))]
    known = [state > 0 for state in states if state is not None] + ([] if bits is None else [bool(bits & THROTTLED)])
    return any(known) if known else None


class Throttling:
    """Looks now and then whether the CPU is slowed down, or was since this was made: `seen`."""

    def __init__(self, place: Place) -> None:
        self._place, self._before, self.seen = place, _counted(place), bool(throttled(place))

    def look(self) -> bool:
        self.seen = self.seen or bool(throttled(self._place)) or _counted(self._place) != self._before
        return self.seen


def is_throttled(place: Place) -> bool:
    """Whether it is now. Takes BETWEEN_S where Linux counts, as on x86-64."""
    throttling = Throttling(place)
    if not throttling.seen and _counted(place):
        time.sleep(BETWEEN_S)
    return throttling.look()


def _counted(place: Place) -> list[int | None]:
    """How often each core, and all together, were slowed down since boot."""
    files = place.found("sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count")
    return [place.number(file) for file in files]
