"""Whether a Raspberry Pi gets the voltage that it needs.

Source: drivers/hwmon/raspberrypi-hwmon.c of Linux; `vcgencmd get_throttled` of Raspberry Pi's documentation.
"""

from dataclasses import dataclass

from edgeml.place import Place
from edgeml.throttling import firmware_bits
from monitor.vitals.check import Finding, Seen, Standing, Vital
from monitor.vitals.limits import Limits

NOW, SINCE_BOOT = 1 << 0, 1 << 16


@dataclass(frozen=True)
class Voltage:
    low: bool
    was_low: bool  # since boot


def read(place: Place) -> Voltage | None:
    chips = [chip for chip in place.found("sys/class/hwmon/hwmon*") if place.text(f"{chip}/name") == "rpi_volt"]
    alarms = [alarm for chip in chips if (alarm := place.number(f"{chip}/in0_lcrit_alarm")) is not None]
    bits = firmware_bits(place)
    if not alarms and bits is None:
        return None
    low = any(alarms) or bool((bits or 0) & NOW)
    return Voltage(low, low or bool((bits or 0) & SINCE_BOOT))


def judge(found: Voltage, limits: Limits, standing: Standing) -> Seen:
    text = "too low" if found.low else "was too low since boot" if found.was_low else "well"
    vitals = {"under_voltage": Vital(float(found.low), "Power", text=text, problem=found.low)}
    low = Finding("under_voltage", "power", "the power supply's voltage is too low")
    return Seen(vitals, (low,) if found.low else ())
