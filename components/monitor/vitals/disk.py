"""Room on the disks: of the root and of the folder in which components work."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from monitor.vitals.check import Finding, Seen, Standing, Vital, under
from monitor.vitals.limits import Limits

MARGIN = 2.0  # percent


@dataclass(frozen=True)
class Space:
    """What a user who is not root may fill: bytes, and the percentage of files that there may still be."""

    folder: str
    size: int
    free: int
    files: float = 100.0


def read(folders: Iterable[Path]) -> list[Space] | None:
    """One for each file system; one that nobody can write, such as a read-only root, does not fill."""
    found: dict[int, Space] = {}
    for folder in folders:
        try:
            device, state = folder.stat().st_dev, os.statvfs(folder)
        except OSError:
            continue
        size = state.f_blocks - state.f_bfree + state.f_bavail
        if not size or state.f_flag & os.ST_RDONLY:
            continue
        files = 100 * state.f_favail / state.f_files if state.f_files else 100.0
        space = Space(str(folder), size * state.f_frsize, state.f_bavail * state.f_frsize, files)
        found.setdefault(device, space)
    return list(found.values()) or None


def judge(found: list[Space], limits: Limits, standing: Standing) -> Seen:
    vitals, findings = {}, []
    for space in found:
        stands, free = ("disk_low", space.folder) in standing, 100 * space.free / space.size
        low = under(min(free, space.files), limits.disk_free_percent, MARGIN, stands=stands)
        name = f"disk_free:{space.folder}"
        label = "Disk free" if space.folder == "/" else "Work folder free"
        vitals[name] = Vital(space.free, label, "bytes", subject=space.folder, whole=space.size, problem=low)
        vitals[f"disk_size:{space.folder}"] = Vital(space.size, unit="bytes", subject=space.folder)
        if low:
            what = "of the disk is" if free <= space.files else "of the disk's inodes are"
            findings.append(
                Finding("disk_low", space.folder, f"no more than {limits.disk_free_percent:g} % {what} free")
            )
    return Seen(vitals, tuple(findings))
