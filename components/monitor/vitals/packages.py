"""How much disk the Python packages of components take: `work/<component>/venv-...` below the core's root."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from monitor.vitals.check import Finding, Seen, Standing, Vital, over
from monitor.vitals.limits import Limits

MARGIN = 0.05  # of the limit
MAX_COMPONENTS = 64
MAX_ENTRIES = 300_000  # in all; more is not counted
BLOCK = 512  # bytes, of st_blocks
PAUSE_EVERY, PAUSE_S = 200, 0.01  # half of a slow core at most, and only every few hours


def sizes(root: Path, pause: Callable[[float], object], left: int = MAX_ENTRIES) -> dict[str, int]:
    """Bytes on disk by component. Links are not followed, files of several names count once. `pause` waits."""
    found: dict[str, int] = {}
    for folder in sorted((root / "work").glob("*/venv-*")):
        component = folder.parent.name
        if folder.is_symlink() or (component not in found and len(found) >= MAX_COMPONENTS):
            continue
        size, left = _size(folder, pause, left)
        found[component] = found.get(component, 0) + size
    return found


def _size(folder: Path, pause: Callable[[float], object], left: int) -> tuple[int, int]:
    total, folders, known = 0, [str(folder)], set[tuple[int, int]]()
    while folders and left > 0:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    left -= 1
                    if left <= 0:
                        break
                    if left % PAUSE_EVERY == 0:
                        pause(PAUSE_S)
                    state = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(state.st_mode):
                        folders.append(entry.path)
                    elif state.st_nlink > 1:
                        if (state.st_dev, state.st_ino) in known:
                            continue
                        known.add((state.st_dev, state.st_ino))
                    total += state.st_blocks * BLOCK
        except OSError:  # closed to us, or removed meanwhile
            continue
    return total, left


def judge(found: dict[str, int], limits: Limits, standing: Standing) -> Seen:
    total, limit = sum(found.values()), limits.packages_gb * 1e9
    large = over(total, limit, MARGIN * limit, stands=("packages_large", "packages") in standing)
    vitals = {"packages": Vital(total, "Packages" if large else "", "bytes", problem=large)}
    vitals |= {f"packages:{name}": Vital(size, unit="bytes", subject=name) for name, size in found.items()}
    finding = Finding(
        "packages_large", "packages", f"the components' Python packages take {limits.packages_gb:g} GB or more"
    )
    return Seen(vitals, (finding,) if large else ())
