"""Built components, and their virtual environments made once and lent to many core roots."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "venvs"
INSTALL_TIMEOUT_S = 900


def _build_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_components", ROOT / "scripts" / "build.py")
    if spec is None or spec.loader is None:
        raise ImportError("scripts/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Gathered:
    """Several builds in one recipe and one artifact folder; `names` by package, `versions` by component name."""

    recipes: Path
    artifacts: Path
    names: dict[str, str]
    versions: dict[str, str]


class Workspace:
    """Builds each component at most once, the same way as `scripts/build` and GDK do."""

    def __init__(self) -> None:
        self._script = _build_script()
        self._built: dict[str, Path] = {}

    def build(self, packages: Iterable[str]) -> list[Path]:
        """The greengrass-build folders of these components, built by this object's first use of each."""
        folders = self._script.component_folders()
        for package in packages:
            if package not in self._built:
                self._built[package] = self._script.build(folders[package])
        return [self._built[package] for package in packages]

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

    def lend_venvs(self, packages: Iterable[str], root: Path) -> None:
        """Put each component's environment into its work folder under `root`, so that `install` finds it done.

        The environment itself is made by the artifact's own install step, once per lock.
        """
        for build in self.build(packages):
            (archive,) = build.glob("artifacts/*/*/*.zip")
            name = archive.parent.parent.name
            venv = _environment(archive)
            if venv is not None:
                work = root / "work" / name
                work.mkdir(parents=True, exist_ok=True)
                (work / "venv").symlink_to(venv)


def recipes(builds: Iterable[Path]) -> list[Path]:
    return [build / "recipes" for build in builds]


def artifacts(builds: Iterable[Path]) -> list[Path]:
    return [build / "artifacts" for build in builds]


def _environment(archive: Path) -> Path | None:
    """The environment for an artifact, from the cache or made now; None for artifacts without a lock."""
    with zipfile.ZipFile(archive) as artifact:
        if "requirements.lock" not in artifact.namelist():
            return None
        lock = artifact.read("requirements.lock")
        key = hashlib.sha256(lock + sys.version.encode()).hexdigest()[:16]
        place = CACHE / f"{archive.stem}-{key}"
        if not (place / "venv" / "installed").exists():
            shutil.rmtree(place, ignore_errors=True)
            (place / "edgeml").mkdir(parents=True)
            (place / "requirements.lock").write_bytes(lock)
            (place / "edgeml" / "install.py").write_bytes(artifact.read("edgeml/install.py"))
            install = ["python3", "-I", str(place / "edgeml" / "install.py")]
            subprocess.run(install, cwd=place, check=True, timeout=INSTALL_TIMEOUT_S, stdout=subprocess.DEVNULL)
        return place / "venv"
