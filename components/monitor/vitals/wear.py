"""How much is written to the disks, and how worn they say that they are.

Source: Documentation/block/stat.rst of Linux; life_time and pre_eol_info of eMMC (JEDEC JESD84-B51).
"""

import re
from collections import deque
from dataclasses import dataclass

from edgeml.place import Place
from monitor.vitals.check import Finding, Seen, Standing, Vital, over
from monitor.vitals.limits import Limits

SECTOR = 512  # bytes, whatever the disk's own sectors are
DAY_S, SAMPLE_S = 86400.0, 3600.0
REAL = re.compile(
    r"(mmcblk\d+|sd[a-z]+|vd[a-z]+|xvd[a-z]+|nvme\d+n\d+)"
)  # not loop, zram, dm, md: those write to these
MARGIN = 0.1  # of the limit
LIFE_MARGIN = 5.0
EOL = {2: "most of its reserve is used", 3: "its reserve is used up"}


@dataclass(frozen=True)
class Disk:
    """Bytes; `per_day` were written in a day, `life_used` is a percentage, `eol` 2 (warning) or 3 (urgent)."""

    name: str
    size: int
    per_day: float = 0.0
    life_used: int | None = None
    eol: int | None = None


class Wear:
    """Remembers for a day what was written when, an hour apart. Until a day is known, all since boot counts as one."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._samples: dict[str, deque[tuple[float, int]]] = {}

    def read(self, uptime: float) -> list[Disk] | None:
        """`uptime` is in seconds from boot, when the kernel began to count."""
        names = [path.rpartition("/")[2] for path in self._place.found("sys/block/*")]
        return [disk for name in names if REAL.fullmatch(name) and (disk := self._disk(name, uptime))] or None

    def _disk(self, name: str, uptime: float) -> Disk | None:
        folder = f"sys/block/{name}"
        size, counts = self._place.number(f"{folder}/size"), self._place.text(f"{folder}/stat").split()
        if not size or len(counts) < 7 or not counts[6].isdecimal():
            return None
        per_day = self._per_day(name, uptime, int(counts[6]) * SECTOR)
        lives = re.findall(r"\b0x[0-9a-fA-F]{2}\b", self._place.text(f"{folder}/device/life_time"))
        steps = [step for step in (int(life, 16) for life in lives) if 1 <= step <= 11]  # of 10 %; 0: not told
        eol = self._place.number(f"{folder}/device/pre_eol_info", 16)
        return Disk(name, size * SECTOR, per_day, max(steps) * 10 if steps else None, eol)

    def _per_day(self, name: str, uptime: float, written: int) -> float:
        samples = self._samples.setdefault(name, deque([(0.0, 0)]))
        if written < samples[-1][1]:  # another disk of that name
            samples.clear()
        if not samples or uptime - samples[-1][0] >= SAMPLE_S:
            samples.append((uptime, written))
        while len(samples) > 1 and uptime - samples[1][0] >= DAY_S:
            samples.popleft()
        return (written - samples[0][1]) * DAY_S / max(DAY_S, uptime - samples[0][0])


def judge(found: list[Disk], limits: Limits, standing: Standing) -> Seen:
    vitals: dict[str, Vital] = {}
    findings: list[Finding] = []
    for disk in found:
        _written(disk, limits, standing, vitals, findings)
        _worn(disk, limits, standing, vitals, findings)
    return Seen(vitals, tuple(findings))


def _written(disk: Disk, limits: Limits, standing: Standing, vitals: dict[str, Vital], findings: list[Finding]) -> None:
    limit = limits.disk_writes_per_day * disk.size
    much = over(disk.per_day, limit, MARGIN * limit, stands=("disk_written", disk.name) in standing)
    name, label = f"disk_written:{disk.name}", "Written a day" if much else ""
    vitals[name] = Vital(disk.per_day, label, "bytes_per_day", subject=disk.name, problem=much)
    if much:
        text = f"{limit / 1e9:.1f} GB a day or more are written to a disk of {disk.size / 1e9:.0f} GB"
        findings.append(Finding("disk_written", disk.name, text))


def _worn(disk: Disk, limits: Limits, standing: Standing, vitals: dict[str, Vital], findings: list[Finding]) -> None:
    reasons = [EOL[disk.eol]] if disk.eol in EOL else []
    if disk.life_used is not None:
        stands = ("disk_worn", disk.name) in standing
        old = over(disk.life_used, limits.disk_life_used_percent, LIFE_MARGIN, stands=stands)
        worn = old or bool(reasons)
        name, label = f"disk_life_used:{disk.name}", "Disk life used"
        vitals[name] = Vital(disk.life_used / 100, label, "ratio", subject=disk.name, problem=worn)
        if old:
            reasons.append(f"{disk.life_used} % of its life is over")
    if reasons:
        findings.append(Finding("disk_worn", disk.name, f"the disk says: {', '.join(reasons)}"))
