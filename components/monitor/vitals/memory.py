"""Whether there is memory to be had, and whether processes wait for it (PSI, Documentation/accounting/psi.rst)."""

import re
from dataclasses import dataclass

from edgeml.place import Place
from monitor.vitals.check import Finding, Seen, Standing, Vital, over, under
from monitor.vitals.limits import Limits

FREE_MARGIN, STALL_MARGIN = 2.0, 5.0  # percent


@dataclass(frozen=True)
class Memory:
    """In bytes; `stalled` is the percentage of the last minute in which all that could run waited for memory."""

    total: int
    free: int
    stalled: float | None


def read(place: Place) -> Memory | None:
    lines = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d{1,15}) kB$", place.text("proc/meminfo"), re.MULTILINE))
    if len(lines) < 2 or not int(lines["MemTotal"]):
        return None
    stalled = re.search(r"^full .*\bavg60=(\d{1,3}\.\d{1,4})\b", place.text("proc/pressure/memory"), re.MULTILINE)
    total, free = (int(lines[name]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return Memory(total, free, float(stalled[1]) if stalled else None)


def judge(found: Memory, limits: Limits, standing: Standing) -> Seen:
    free = 100 * found.free / found.total
    low = under(free, limits.memory_free_percent, FREE_MARGIN, stands=("memory_low", "memory") in standing)
    vitals = {
        "memory_free": Vital(found.free, "Memory free", "bytes", whole=found.total, problem=low),
        "memory_size": Vital(found.total, unit="bytes"),
    }
    findings = (
        [Finding("memory_low", "memory", f"no more than {limits.memory_free_percent:g} % can be had")] if low else []
    )
    if found.stalled is not None:
        stands = ("memory_stalled", "memory") in standing
        stalled = over(found.stalled, limits.memory_stall_percent, STALL_MARGIN, stands=stands)
        label = "Waiting for memory" if stalled else ""
        vitals["memory_stalled"] = Vital(found.stalled / 100, label, "ratio", problem=stalled)
        if stalled:
            text = f"for {limits.memory_stall_percent:g} % of a minute nothing ran, waiting for memory"
            findings.append(Finding("memory_stalled", "memory", text))
    return Seen(vitals, tuple(findings))
