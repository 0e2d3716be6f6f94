"""Environments for built components: links to what .venv holds or, where that is something else, the install step.

scripts/lock gives components the versions and hashes that .venv is made from. To download, unpack and compile them anew
for each component takes minutes in a fresh tree; links to the files that pip put into .venv take seconds. Another
Python, another version or hash, or a file that is missing: then the artifact's own install step does it.
"""

import compileall
import csv
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "venvs"
CODE = ROOT / ".cache" / "code"
LOCK = ROOT / "requirements.lock"  # that scripts/setup makes .venv from
INSTALL_TIMEOUT_S = 900
_VENV_TIMEOUT_S = 60
_LENT = "lent"  # what an environment was made of; goes with it
_RUNTIME = "import sys; print((sys.implementation.cache_tag, sys.base_prefix))"


def environment(archive: Path, python: str) -> Path | None:
    """The environment for an artifact, from the cache or made now; None for artifacts without a lock.

    For one process at a time. Raises CalledProcessError and TimeoutExpired of the install step.
    """
    place = CACHE / f"{archive.stem}-{python.strip('/').replace('/', '-')}"
    with zipfile.ZipFile(archive) as zipped:
        if "requirements.lock" not in zipped.namelist():
            return None
        sources = [f"{shutil.which(python)}".encode(), *map(zipped.read, ("requirements.lock", "edgeml/install.py"))]
        made_of = hashlib.sha256(b"\n".join(sources)).hexdigest()
        stamp = place / "venv" / _LENT
        if not stamp.exists() or stamp.read_text() != made_of:
            with tempfile.TemporaryDirectory(prefix="edgeml-install-") as artifact:
                zipped.extractall(artifact)
                place.mkdir(parents=True, exist_ok=True)
                if not linked(Path(artifact), place, python):
                    installed(Path(artifact), place, python)
            stamp.unlink(missing_ok=True)
            stamp.write_text(made_of)
    return (place / "venv").resolve()


def unpacked(archive: Path) -> Path:
    """An artifact's files with its modules compiled, from the cache or made now. For one process at a time."""
    place = CODE / archive.stem / hashlib.sha256(archive.read_bytes()).hexdigest()
    if not place.exists():
        shutil.rmtree(place.parent, ignore_errors=True)  # of other builds
        place.parent.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as made:
            files = Path(made) / archive.stem
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(files)
            compileall.compile_dir(files, quiet=1)
            files.rename(place)
    return place


def installed(artifact: Path, work: Path, python: str) -> None:
    """Run the install step of an unpacked artifact, as a core does."""
    install = [python, "-I", f"{artifact}/edgeml/install.py"]
    subprocess.run(install, cwd=work, check=True, timeout=INSTALL_TIMEOUT_S, stdout=subprocess.DEVNULL)


def linked(artifact: Path, work: Path, python: str) -> bool:
    """Put into `work` what the install step would, of files of .venv; False, and nothing done, where it has others."""
    lock = (artifact / "requirements.lock").read_text(encoding="utf-8")
    files = files_of(lock)
    asked = [python, "-I", "-c", _RUNTIME]
    runtime = subprocess.run(asked, check=True, timeout=_VENV_TIMEOUT_S, stdout=subprocess.PIPE, text=True).stdout
    if files is None or runtime.strip() != str((sys.implementation.cache_tag, sys.base_prefix)):
        return False
    step = runpy.run_path(f"{artifact}/edgeml/install.py")
    name = f"venv-{step['key'](lock.encode())}"
    venv, link = work / name, work / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([python, "-I", "-m", "venv", "--without-pip", venv], check=True, timeout=_VENV_TIMEOUT_S)
    (site,) = venv.glob("lib/python*/site-packages")
    for source, path in files.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copy2(source, target)
    step["trim"](site)
    (venv / step["STAMP"]).write_text(lock, encoding="utf-8")
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    return True


def files_of(lock: str) -> dict[str, str] | None:
    """What .venv holds of a lock's packages, and where in site-packages; None if that is not what the lock says."""
    ours = {(each.name, each.specifier): hashes for each, hashes in _locked(LOCK.read_text(encoding="utf-8"))}
    files: dict[str, str] = {}
    for wanted, hashes in _locked(lock):
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        version, held = _held(wanted.name)
        if not held or not wanted.specifier.contains(version) or ours.get((wanted.name, wanted.specifier)) != hashes:
            return None
        files |= held
    return files if all(map(os.path.isfile, files)) else None


@cache
def _held(package: str) -> tuple[str, dict[str, str]]:
    """The version and the files, as `files_of` gives them, that .venv has of a package; none where it has none."""
    found = next(iter(metadata.distributions(name=package)), None)
    if found is None:
        return "", {}
    site, files = str(found.locate_file("")), {}
    for name, *_ in csv.reader((found.read_text("RECORD") or "").splitlines()):
        source = os.path.join(site, name)  # noqa: PTH118  (of thousands)
        if not name.startswith("../") and (not name.endswith(".pyc") or os.path.exists(source)):  # noqa: PTH110
            files[source] = name  # no commands: nobody calls them
    return found.version, files


@cache
def _locked(lock: str) -> list[tuple[Requirement, set[str]]]:
    """What a lock asks for, such as `msgspec==0.19.0 ; python_version < '4'`, and the hashes it allows for each."""
    entries = re.findall(r"^(\w\S*==[^\\\n]+?) *((?:\\\n +--hash=\S+ *)+)", lock, re.MULTILINE)
    return [(Requirement(entry), set(re.findall(r"--hash=(\S+)", hashes))) for entry, hashes in entries]
