"""Artifacts that carry a tiny wheel, installed without a network, and whatever may happen meanwhile."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from edgeml import install as step
from support import ROOT

SCRIPT = ROOT / "components" / "edgeml" / "install.py"
# Stands in for pip where what pip does is not the point: unpacks the wheel that the lock names.
PIP = """
import pathlib, re, sys, sysconfig, zipfile
options = dict(zip(sys.argv, sys.argv[1:]))
name, version = re.match("(.*)==(.*) --hash", pathlib.Path(options["-r"]).read_text()).groups()
(wheel,) = pathlib.Path(options["--find-links"]).glob(f"{name}-{version}-*.whl")
zipfile.ZipFile(wheel).extractall(sysconfig.get_path("purelib"))
"""
# The script with what it calls replaced: `NAME=before`, `NAME=after` kill the process there; `NAME=CODE` is raised.
# `stubs`: the pip above, and no waiting until the disk of a busy machine has written what others wrote.
# `pip=FOLDER`: the real pip, compiled before, which halves what it costs.
INJECTED = """
import importlib.util, os, pathlib, signal, sys, types
install = types.ModuleType("install")
install.__file__ = sys.argv[1]
exec(compile(pathlib.Path(sys.argv[1]).read_bytes(), sys.argv[1], "exec"), vars(install))

def replaced(original, what):
    def call(*arguments, **named):
        if what.isdigit():
            raise OSError(int(what), os.strerror(int(what)))
        if what == "after":
            original(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    return call

class Wheel:  # of pip
    def __init__(self, path): pass
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def extractall(self, folder): (folder / "pip").write_text(PIP)

class Library:  # of C
    whole = install.ctypes.CDLL(None)
    def __init__(self, name): pass
    def __getattr__(self, name): return (lambda *given: 0) if name == "syncfs" else getattr(self.whole, name)

words = sys.argv[2:]
sys.argv[1:] = [word.partition("=")[2] for word in words if word.startswith("runtime=")]
for change in words:
    if change.startswith("runtime="):
        continue
    if change == "stubs":
        install.zipfile.ZipFile, install.os.fsync, install.ctypes.CDLL = Wheel, lambda descriptor: None, Library
        continue
    name, _, what = change.partition("=")
    if name == "pip":
        install.unpacked_pip = lambda temporary, found=pathlib.Path(what): found
        continue
    where = install
    for part in name.split(".")[:-1]:
        where = getattr(where, part)
    setattr(where, name.split(".")[-1], replaced(getattr(where, name.split(".")[-1]), what))
install.main()
""".replace("PIP", repr(PIP))


def make_artifact(folder: Path, version: str, size: int = 0) -> Path:
    """An unpacked artifact whose lock names package `tiny` of this version, which has `size` bytes of data."""
    (folder / "edgeml").mkdir(parents=True)
    (folder / "wheels").mkdir()
    shutil.copy(SCRIPT, folder / "edgeml")
    wheel = folder / "wheels" / f"tiny-{version}-py3-none-any.whl"
    files = {
        "tiny/__init__.py": f"version = {version!r}\n".encode(),
        "tiny/tests/test_it.py": b"",
        "tiny/inner/tests/data.bin": b"x",
        "tiny/testing.py": b"",
        "tiny/data.bin": bytes(size),
        "botocore/data/s3/x.json": b"",
        "botocore/data/ec2/x.json": b"",
        "botocore/data/endpoints.json": b"",
        "cv2/data/face.xml": b"",
        "cv2/data/__init__.py": b"",
        f"tiny-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n".encode(),
        f"tiny-{version}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"tiny-{version}.dist-info/RECORD", record + f"tiny-{version}.dist-info/RECORD,,\n")
    lock(folder, version, hashlib.sha256(wheel.read_bytes()).hexdigest())
    return folder


def lock(artifact: Path, version: str, digest: str) -> None:
    (artifact / "requirements.lock").write_text(f"tiny=={version} --hash=sha256:{digest}\n")


def command(artifact: Path, *changes: str) -> list[str]:
    script = str(artifact / "edgeml" / "install.py")
    return [sys.executable, "-I", *(["-c", INJECTED, script, *changes] if changes else [script])]


def install(artifact: Path, work: Path, *changes: str, real: bool = False) -> subprocess.CompletedProcess[str]:
    """`real`: with pip and a disk that is waited for."""
    work.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": "/nonexistent"}
    words = command(artifact, *([] if real else ["stubs"]), *changes)
    return subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, timeout=60)


def runs(work: Path) -> str:
    """The version of `tiny` that a component in this work folder would import."""
    python = [str(work / "venv" / "bin" / "python"), "-I", "-c", "import tiny; print(tiny.version)"]
    done = subprocess.run(python, capture_output=True, text=True, timeout=20, cwd=work)
    return done.stdout.strip() or done.stderr


def venv_of(artifact: Path) -> str:
    return f"venv-{step.key((artifact / 'requirements.lock').read_bytes())}"


def names(work: Path) -> set[str]:
    return {path.name for path in work.iterdir()} - {".venv.lock"}


def old(work: Path) -> None:
    """As version 1.0 left it: `venv` is a folder."""
    folder = (work / "venv").resolve()
    (work / "venv").unlink()
    folder.rename(work / "venv")
