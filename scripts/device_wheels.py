"""Wheels for another machine than this one: which it takes, and what of a lock holds there.

Needs the standard library only, as build.py, which puts them into artifacts.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 900
_PIP = [sys.executable, "-m", "pip", "download", "-qq", "--only-binary", ":all:", "--no-deps"]


@dataclass(frozen=True)
class Wheels:
    """The machine whose wheels an artifact carries; Python as 3.13.

    `place`: index or folder that the build of a runtime comes from which no public index has.
    """

    platform: str
    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"
    place: str = ""


def compatible_platforms(platform: str) -> list[str]:
    """`platform` and the older ones whose wheels it runs, for pip takes a name by the letter. Raises SystemExit."""
    found = re.fullmatch(r"manylinux_2_(\d{1,2})_(aarch64|x86_64)", platform)
    oldest = {"aarch64": 17, "x86_64": 5}.get(found[2], 0) if found else 0
    if found is None or int(found[1]) < oldest:
        raise SystemExit(
            f"--wheels {platform}: expected manylinux_2_<glibc>_aarch64 or _x86_64, such as manylinux_2_28_aarch64"
        )
    former = {17: "2014", 12: "2010", 5: "1"}  # names that these had before they were numbered by glibc
    tags = []
    for minor in range(int(found[1]), oldest - 1, -1):
        tags.append(f"manylinux_2_{minor}_{found[2]}")
        if minor in former:
            tags.append(f"manylinux{former[minor]}_{found[2]}")
    return tags


def pinned(lock: str, version: str) -> str:
    """The requirements of a lock that hold for a Python version such as 3.13, without the markers that say so.

    pip would judge them by the Python it runs on. Raises SystemExit for a marker that locks here do not have.
    """
    kept = []
    for block in blocks(lock):
        first, separator, rest = block.partition("\n")
        requirement, marked, marker = first.removesuffix("\\").rstrip().partition(" ; ")
        clauses = marker.split(" and ") if marked else []
        if all(_holds(clause, version, first) for clause in clauses if "version" in clause):
            others = " and ".join(clause for clause in clauses if "version" not in clause)
            end = " \\" if first.endswith("\\") else ""
            kept.append(f"{requirement}{others and f' ; {others}'}{end}{separator}{rest}")
    return "".join(kept)


def _holds(clause: str, version: str, line: str) -> bool:
    test = re.fullmatch(r"python_full_version (<|>=|==) '([0-9.]+?)(\.\*)?'", clause)
    if test is None or (test[1] == "==") != bool(test[3]):
        raise SystemExit(f"{line}: a marker that is not known here")
    ours, theirs = _numbers(version), _numbers(test[2])
    return {"<": ours < theirs, ">=": ours >= theirs, "==": ours == theirs}[test[1]]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def download(lock: str, wheels: Wheels, target: Path, who: str) -> None:
    """Put the wheels of a lock into the folder `target`. Raises SystemExit with the reason, after `who` asks."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(pinned(lock, wheels.python))
        requirements.flush()
        _download(["--require-hashes", "-r", requirements.name], wheels, target, who)


def replaced(lock: str, names: set[str], wheels: Wheels, target: Path, who: str) -> str:
    """The lock with the builds of `names` that `wheels.place` has, put into `target`, by their hashes as downloaded.

    Raises SystemExit.
    """
    folder = Path(wheels.place).is_dir()
    index = ["--no-index", "--find-links", wheels.place] if folder else ["--index-url", wheels.place]
    _download([*index, *sorted(names)], wheels, target, who)
    found = {}
    for wheel in target.glob("*.whl"):
        name, version, *_ = wheel.name.split("-")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        found[name.replace("_", "-").lower()] = f"{name.replace('_', '-')}=={version} --hash=sha256:{digest}\n"
    kept = [block for block in blocks(lock) if name_of(block) not in names]
    return "".join([*kept, *(found[name] for name in sorted(names))])


def blocks(lock: str) -> list[str]:
    """Each requirement of a lock with its hashes, and what stands before the first."""
    return re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)


def name_of(block: str) -> str:
    return block.partition("==")[0].lower()


def _download(wanted: list[str], wheels: Wheels, target: Path, who: str) -> None:
    # NVIDIA's own wheels are for linux_aarch64, which an index of everybody's does not take.
    machine = wheels.platform.split("_", 3)[3]
    tags = [*compatible_platforms(wheels.platform), *([f"linux_{machine}"] if wheels.place else [])]
    command = [*_PIP, "--python-version", wheels.python, "-d", str(target)]
    command += [part for tag in tags for part in ("--platform", tag)]
    try:
        done = subprocess.run([*command, *wanted], check=False, timeout=TIMEOUT_S, stderr=subprocess.PIPE, text=True)
    except subprocess.TimeoutExpired:  # it shows the command, and an index may have a password in it
        raise SystemExit(f"{who}: no wheels for {wheels.platform} within {TIMEOUT_S:g} s") from None
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), done.stderr.strip())
        raise SystemExit(f"{who}: no wheels for {wheels.platform}, Python {wheels.python}: {reason[:300]}")
