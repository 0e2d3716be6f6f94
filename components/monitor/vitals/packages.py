"""How much disk the Python packages of components take: `work/<component>/venv-...` below the core's root.

These folders are other people's: what lies in them is bounded in number and depth, and links are not followed.
"""

import os
import stat
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from monitor.vitals.check import Finding, Seen, Standing, Vital, over
from monitor.vitals.limits import Limits

MARGIN = 0.05  # of the limit
MAX_COMPONENTS, MAX_NAME = 64, 128
MAX_BESIDE = 10_000  # entries of a work folder among which environments are looked for
MAX_ENTRIES, MAX_DEPTH, MAX_LINKS = 300_000, 40, 4096  # of all environments together; more is not counted
BLOCK = 512  # bytes, of st_blocks
PAUSE_EVERY, PAUSE_S = 200, 0.01  # half of a slow core at most, and only every few hours


def sizes(root: Path, pause: Callable[[float], object], most: int = MAX_ENTRIES) -> dict[str, int]:
    """Bytes on disk by component. Files of several names count once. `pause` waits so many seconds."""
    found: dict[str, int] = {}
    entries = islice(_entries(root), most)
    linked = set[tuple[int, int]]()
    for number, (component, state) in enumerate(entries, 1):
        if number % PAUSE_EVERY == 0:
            pause(PAUSE_S)
        if not stat.S_ISDIR(state.st_mode) and state.st_nlink > 1 and len(linked) < MAX_LINKS:
            if (state.st_dev, state.st_ino) in linked:
                continue
            linked.add((state.st_dev, state.st_ino))
        found[component] = found.get(component, 0) + state.st_blocks * BLOCK
    return found


def _entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything in the environments, with its component."""
    for work in islice(_listed(root / "work"), MAX_COMPONENTS):
        component = work.name.encode(errors="replace").decode()[:MAX_NAME]
        for folder in islice(_listed(work), MAX_BESIDE) if _is_folder(work) else ():
            if folder.name.startswith("venv-") and _is_folder(folder):
                yield from ((component, state) for state in _below(folder, MAX_DEPTH))


def _below(folder: os.DirEntry[str], depth: int) -> Iterator[os.stat_result]:
    for entry in _listed(folder):
        try:
            state = entry.stat(follow_symlinks=False)
        except OSError:  # removed meanwhile
            continue
        yield state
        if depth and stat.S_ISDIR(state.st_mode):
            yield from _below(entry, depth - 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _listed(folder: os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """As they come, so that a folder of a million files takes no memory. Nothing, where it is closed to us."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return


def judge(found: dict[str, int], limits: Limits, standing: Standing) -> Seen:
    total, limit = sum(found.values()), limits.packages_gb * 1e9
    large = over(total, limit, MARGIN * limit, stands=("packages_large", "packages") in standing)
    vitals = {"packages": Vital(total, "Packages" if large else "", "bytes", problem=large)}
    vitals |= {f"packages:{name}": Vital(size, unit="bytes", subject=name) for name, size in found.items()}
    text = f"the components' Python packages take {limits.packages_gb:g} GB or more"
    return Seen(vitals, (Finding("packages_large", "packages", text),) if large else ())
