"""The temperature of the CPU, and whether it is slowed down because of that."""

import re
from dataclasses import dataclass

from edgeml.place import Place
from edgeml.throttling import throttled
from monitor.vitals.check import Finding, Seen, Standing, Vital, over
from monitor.vitals.limits import Limits

MARGIN = 5.0
PLAUSIBLE = range(-40_000, 150_000)  # thousandths of a degree: a sensor that is off or broken shows anything
CPU_ZONE = re.compile(r"cpu|soc|x86_pkg", re.IGNORECASE)
CPU_CHIPS = {"coretemp", "cpu_thermal", "k10temp", "zenpower"}


@dataclass(frozen=True)
class Temperature:
    celsius: float | None
    throttled: bool | None


def read(place: Place) -> Temperature | None:
    zones = [
        zone for zone in place.found("sys/class/thermal/thermal_zone*") if CPU_ZONE.search(place.text(f"{zone}/type"))
    ]
    chips = [chip for chip in place.found("sys/class/hwmon/hwmon*") if place.text(f"{chip}/name") in CPU_CHIPS]
    files = [f"{zone}/temp" for zone in zones] + [file for chip in chips for file in place.found(f"{chip}/temp*_input")]
    values = [value for file in files if (value := place.number(file)) is not None and value in PLAUSIBLE]
    found = Temperature(max(values) / 1000 if values else None, throttled(place))
    return None if found == Temperature(None, None) else found


def judge(found: Temperature, limits: Limits, standing: Standing) -> Seen:
    vitals, findings = {}, []
    if found.celsius is not None:
        hot = over(found.celsius, limits.cpu_celsius, MARGIN, stands=("too_hot", "cpu") in standing)
        vitals["cpu_temperature"] = Vital(found.celsius, "CPU", "celsius", problem=hot)
        if hot:
            findings.append(Finding("too_hot", "cpu", f"the CPU has reached {limits.cpu_celsius:g} °C"))
    if found.throttled is not None:
        text = "slowed down" if found.throttled else "full speed"
        label = "CPU speed" if found.throttled else ""
        vitals["cpu_throttled"] = Vital(float(found.throttled), label, text=text, problem=found.throttled)
        if found.throttled:
            findings.append(
                Finding("throttled", "cpu", "the CPU is slowed down, so that it stays within heat and power")
            )
    return Seen(vitals, tuple(findings))
