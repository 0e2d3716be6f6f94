"""Built components, and their virtual environments and compiled code made once and lent to many core roots."""

import atexit
import fcntl
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import build as build_script
from localdev.environments import environment, unpacked

ROOT = Path(__file__).resolve().parents[2]
BUILDS = ROOT / ".cache" / "builds"
BUNDLES = ROOT / ".cache" / "bundles"
BUILD_LOCKS = ROOT / ".cache" / "locks"  # one for each package: who needs another one does not wait
BUILD_TIMEOUT_S = 600  # the first build of a model bundle downloads a package


@dataclass(frozen=True)
class Gathered:
    """Several builds in one recipe and one artifact folder; `names` by package, `versions` by component name."""

    recipes: Path
    artifacts: Path
    names: dict[str, str]
    versions: dict[str, str]


class Workspace:
    """Builds each component the same way as `scripts/build` and GDK do, and once for all processes until it changes.

    It hands out copies that last as long as the process: another process may build the same component anew meanwhile.
    """

    def __init__(self) -> None:
        self._built: dict[str, Path] = {}
        self._environments: dict[tuple[Path, str], Path | None] = {}

    def build(self, packages: Iterable[str]) -> list[Path]:
        """What greengrass-build holds of each of these components, built by this object's first use of each."""
        for package in packages:
            if package not in self._built:
                self._built[package] = self._build(package)
        return [self._built[package] for package in packages]

    def _build(self, package: str) -> Path:
        copy = Path(tempfile.mkdtemp(prefix="edgeml-build-"))
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        with _locked(BUILD_LOCKS / package, BUILD_TIMEOUT_S):
            return Path(shutil.copytree(_built(package), copy, dirs_exist_ok=True))

    def gather(self, packages: Iterable[str], target: Path) -> Gathered:
        """Build components and link the results into `target`, for one deployment of them all."""
        gathered = Gathered(target / "recipes", target / "artifacts", {}, {})
        gathered.recipes.mkdir(parents=True)
        gathered.artifacts.mkdir()
        for package, build in zip(packages, self.build(packages), strict=True):
            (artifact,) = build.glob("artifacts/*/*")
            name, version = artifact.parent.name, artifact.name
            gathered.names[package], gathered.versions[name] = name, version
            (gathered.artifacts / name).symlink_to(artifact.parent)
            for recipe in (build / "recipes").iterdir():
                (gathered.recipes / recipe.name).symlink_to(recipe)
        return gathered

    def lend_venvs(
        self,
        packages: Iterable[str],
        root: Path,
        python: str = "python3",
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Put each component's environment into its work folder under `root`, so that `install` finds it done.

        `progress` is told which one is being looked after.

        `python` is what runs the install step: under sudo that of its secure_path, which may be another one.
        The environment itself is made once per lock, as localdev.environments says; the one before is kept.
        The code goes to where a core without it would unpack it, compiled, as it is at every start but the first.
        """
        builds = self.build(packages)
        for number, build in enumerate(builds, 1):
            (archive,) = build.glob("artifacts/*/*/*.zip")
            name = archive.parent.parent.name
            progress(f"{number} of {len(builds)}: {name}")
            venv = self._lent(archive, python)
            if venv is not None:
                work = root / "work" / name
                work.mkdir(parents=True, exist_ok=True)
                (work / "venv").unlink(missing_ok=True)
                (work / "venv").symlink_to(venv)
                self._lend_code(archive, root / "packages")
            if any("EDGEML_PRIVATE" in recipe.read_text() for recipe in build.glob("recipes/*")):
                self._lend_to_root(archive, root / "private")

    def _lend_code(self, archive: Path, packages: Path) -> None:
        component = Path(*archive.parts[-3:-1])  # name and version
        held = packages / "artifacts" / component / archive.name
        if held.exists():
            return
        target = packages / "artifacts-unarchived" / component / archive.stem
        with _locked(BUILD_LOCKS / archive.stem, BUILD_TIMEOUT_S):
            shutil.copytree(unpacked(archive), target, dirs_exist_ok=True)
        held.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(archive, held)

    def _lend_to_root(self, archive: Path, private: Path) -> None:
        """Where a privileged component's own script looks, which the core runs with its own python3."""
        venv = self._lent(archive, "python3")
        if venv is not None:
            private.mkdir(mode=0o700, parents=True, exist_ok=True)
            (private / "venv").unlink(missing_ok=True)
            (private / "venv").symlink_to(venv)

    def _lent(self, archive: Path, python: str) -> Path | None:
        if (archive, python) not in self._environments:
            with _locked(BUILD_LOCKS / archive.stem, BUILD_TIMEOUT_S):
                self._environments[archive, python] = environment(archive, python)
        return self._environments[archive, python]


def prepare() -> None:
    """Builds every component, makes its environment and compiles it, unless that is done. Processes share the work."""
    packages = list(build_script.component_folders())
    random.shuffle(packages)  # who comes to one that another process is at waits for it
    for package in packages:
        with _locked(BUILD_LOCKS / package, BUILD_TIMEOUT_S):
            for archive in _built(package).glob("artifacts/*/*/*.zip"):
                if environment(archive, "python3") is not None:
                    unpacked(archive)


def recipes(builds: Iterable[Path]) -> list[Path]:
    return [build / "recipes" for build in builds]


def artifacts(builds: Iterable[Path]) -> list[Path]:
    return [build / "artifacts" for build in builds]


def bundle(package: str) -> Path:
    """The folder of a model bundle, built as `scripts/build` does on first use and kept: a download of some MB.

    Raises CalledProcessError, whose reason is on stderr, and TimeoutError.
    """
    target = BUNDLES / package
    with _locked(BUILD_LOCKS / package, BUILD_TIMEOUT_S):
        if not (target / "model.onnx").exists():
            command = [sys.executable, str(ROOT / "scripts" / "build.py"), package]
            done = subprocess.run(command, cwd=ROOT, check=True, timeout=BUILD_TIMEOUT_S, stdout=subprocess.PIPE)
            (archive,) = (ROOT / done.stdout.decode().strip()).glob("artifacts/*/*/*.zip")
            BUNDLES.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=BUNDLES) as made:
                shutil.unpack_archive(archive, Path(made) / package)
                (Path(made) / package).rename(target)
    return target


def _built(package: str) -> Path:
    """What greengrass-build holds of a component, built if it is another one than that of the last time."""
    folder, kept = build_script.component_folders()[package], BUILDS / package
    made_of, stamp = _digest(folder), BUILDS / f"{package}.sha256"
    if not stamp.exists() or stamp.read_text() != made_of or not kept.is_dir():
        stamp.unlink(missing_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(build_script.build(folder), kept)
        stamp.write_text(made_of)
    return kept


def _digest(folder: Path) -> str:
    """Of all that a build of `folder` reads, and of what builds."""
    digest = hashlib.sha256(sys.version.encode())
    for source in (folder, ROOT / "components" / "edgeml", ROOT / "scripts" / "bundles", Path(build_script.__file__)):
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            parts = path.relative_to(source).parts
            if path.is_file() and not {"__pycache__", "greengrass-build", "zip-build"} & set(parts):
                digest.update(f"{parts} {path.stat().st_size}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _locked(path: Path, timeout_s: float) -> Iterator[None]:
    """One process at a time; TimeoutError when another holds the lock for that long. The end of a process frees it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_s
    with path.open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} is held by another process for {timeout_s:g} s") from None
                time.sleep(0.05)
        yield
