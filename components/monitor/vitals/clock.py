"""Whether somebody keeps the clock right, and what it shows at all on a device without a battery for it."""

import time
from dataclasses import dataclass

from edgeml.clock import EARLIEST, WAIT_S, synchronised
from monitor.vitals.check import Finding, Seen, Standing, Vital
from monitor.vitals.limits import Limits


@dataclass(frozen=True)
class Time:
    """Seconds; `wall` is Unix time."""

    uptime: float
    wall: float
    synchronised: bool


def read() -> Time:
    return Time(time.clock_gettime(time.CLOCK_BOOTTIME), time.time(), synchronised())


def judge(found: Time, limits: Limits, standing: Standing) -> Seen:
    """After boot a time server is given ten minutes; a year that has long passed is wrong at once."""
    early = found.wall < EARLIEST
    wrong = early or (not found.synchronised and found.uptime >= WAIT_S)
    text = "not set" if early else "synchronised" if found.synchronised else "unsynchronised"
    vitals = {
        "clock_synchronised": Vital(float(found.synchronised and not early), "Clock", text=text, problem=wrong),
        "uptime": Vital(found.uptime, "Up for", "seconds"),
    }
    if not wrong:
        return Seen(vitals)
    why = f"it shows {time.strftime('%Y-%m-%d', time.gmtime(found.wall))}" if early else "no time server keeps it right"
    return Seen(vitals, (Finding("clock", "device", f"the device's clock cannot be relied on: {why}"),))
