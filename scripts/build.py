"""Builds components: `greengrass-build/recipes/<recipe>`, `greengrass-build/artifacts/<name>/<version>/<package>.zip`.

`gdk component build` runs this in a component's folder (custom build system); `scripts/build` runs it for all of
them. Zips are reproducible: names sorted, times and modes fixed. Needs the standard library only, but for components
with a build.py of their own (model bundles, fetched files), whose tools live in .venv.
"""

import argparse
import hashlib
import importlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from device_wheels import Wheels, blocks, compatible_platforms, download, name_of, replaced

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS = ROOT / "components"
EPOCH = (1980, 1, 1, 0, 0, 0)
LEFT_OUT = {
    "__pycache__",
    "greengrass-build",
    "zip-build",
    "README.md",
    "build.py",
    "unprivileged.yaml",
    "grafana.json",
    "screenshots",
}
DIGEST = "SHA256_OF_ZIP"  # in recipes whose script compares the archive with it
NOT_CODE = re.compile(r".*\.pyc|requirements.*\.(in|lock)")
LINKS = {"recipe.yaml", "gdk-config.json"}
CPU = "cpu"  # the runtime of requirements.lock; requirements-NAME.lock is that of another
PYTHON = "python3"  # in the recipes' steps
# A name on PATH or an absolute path, and nothing that a shell reads as more.
INTERPRETER = re.compile(r"(?=.{1,100}$)(?:/(?:\.?\w[\w.+-]*/)*)?[A-Za-z_][\w.+-]*", re.ASCII)
MAIN = '''"""Runs the component: `python3 -I -u FOLDER`, for neither sudo nor -I let PYTHONPATH through."""

import os
import runpy
import sys

# An upgrade switches the link `venv` while this runs: what is imported later still comes from the same environment.
sys.path[:] = [os.path.realpath(entry) for entry in sys.path]
runpy.run_module("{package}", run_name="__main__")
'''


def component_folders() -> dict[str, Path]:
    """Every component's folder by package name."""
    configured = [*COMPONENTS.glob("*/gdk-config.json"), *COMPONENTS.glob("*/*/gdk-config.json")]
    return {path.parent.name: path.parent for path in sorted(configured)}


def build(
    folder: Path,
    wheels: Wheels | None = None,
    *,
    unprivileged: bool = False,
    python: str = PYTHON,
    runtime: str = CPU,
) -> Path:
    """Build one component, whose steps run `python` and install the lock of `runtime`; its greengrass-build folder.

    SystemExit names what is inconsistent.
    """
    name, version = _identity(folder)
    recipe = (folder / "recipe.yaml").resolve()
    text = recipe.read_text(encoding="utf-8")
    if not re.search(rf"^ComponentName: {re.escape(name)}$", text, re.MULTILINE):
        raise SystemExit(f"{recipe}: ComponentName is not {name}, which gdk-config.json says")
    text, found = re.subn(r"^ComponentVersion: .*$", f'ComponentVersion: "{version}"', text, flags=re.MULTILINE)
    if found != 1:
        raise SystemExit(f"{recipe}: expected one line 'ComponentVersion: ...', found {found}")
    if unprivileged:
        text = _unprivileged(text, folder)
    text = re.sub(rf"(?<=[ ]){PYTHON}(?= -I )", interpreter(python), text)
    if runtime != CPU:
        text = re.sub(r'(?<=/edgeml/install\.py")$', f" {runtime}", text, flags=re.MULTILINE)
    target = folder / "greengrass-build"
    shutil.rmtree(target, ignore_errors=True)
    artifacts = target / "artifacts" / name / version
    artifacts.mkdir(parents=True)
    (target / "recipes").mkdir()
    archive = artifacts / f"{folder.name}.zip"
    with tempfile.TemporaryDirectory() as staging:
        _stage(folder, Path(staging), wheels, runtime)
        _zip(Path(staging), archive)
    text = text.replace(DIGEST, hashlib.sha256(archive.read_bytes()).hexdigest())
    # GDK looks for the name that the recipe link points to, not for recipe.yaml.
    (target / "recipes" / recipe.name).write_text(text, encoding="utf-8")
    return target


def _unprivileged(text: str, folder: Path) -> str:
    """The recipe with the steps of `unprivileged.yaml`."""
    steps = (folder / "unprivileged.yaml").read_text(encoding="utf-8")
    made, found = re.subn(r"(?<=^    Lifecycle:\n).*?(?=^    Artifacts:)", lambda _: steps, text, flags=re.M | re.S)
    if found != 1:
        raise SystemExit(f"{folder / 'recipe.yaml'}: expected one Lifecycle before Artifacts, found {found}")
    return made


def interpreter(python: str) -> str:
    """`python`, which stands in a script. Raises SystemExit unless it is a name or an absolute path."""
    if not INTERPRETER.fullmatch(python):
        raise SystemExit(f"--python {python}: expected a name as python3.12, or an absolute path without spaces")
    return python


def _identity(folder: Path) -> tuple[str, str]:
    components = json.loads((folder / "gdk-config.json").read_text(encoding="utf-8"))["component"]
    ((name, settings),) = components.items()
    version = settings["version"]
    if not re.fullmatch(r"\d+\.\d+\.\d+(-[\w.]+)?", version):
        raise SystemExit(f"{folder / 'gdk-config.json'}: version must be like 1.2.3, found {version}")
    return name, version


def _stage(folder: Path, staging: Path, wheels: Wheels | None, runtime: str) -> None:
    if (folder / "requirements.lock").exists():  # model bundles hold no code
        _stage_code(folder, staging, wheels, runtime)
    if (folder / "build.py").exists():
        _run_own_build(folder, staging)


def _stage_code(folder: Path, staging: Path, wheels: Wheels | None, runtime: str) -> None:
    for package in (folder, COMPONENTS / "edgeml"):
        shutil.copytree(
            package,
            staging / package.name,
            ignore=lambda _, names: [name for name in names if name in LEFT_OUT | LINKS or NOT_CODE.fullmatch(name)],
        )
    (staging / "__main__.py").write_text(MAIN.format(package=folder.name), encoding="utf-8")
    for lock in _locks(folder).values():
        shutil.copy(lock, staging)
    if runtime != CPU:
        _stage_runtime(folder, staging, runtime, wheels)
    elif wheels:
        download(_locks(folder)[CPU].read_text(encoding="utf-8"), wheels, staging / "wheels", folder.name)


def _locks(folder: Path) -> dict[str, Path]:
    """What may be installed, by runtime."""
    others = {path.stem.partition("-")[2]: path for path in sorted(folder.glob("requirements-*.lock"))}
    return {CPU: folder / "requirements.lock", **others}


def _stage_runtime(folder: Path, staging: Path, runtime: str, wheels: Wheels | None) -> None:
    if runtime not in (locks := _locks(folder)):
        raise SystemExit(f"--runtime {runtime}: {folder.name} has {', '.join(locks)}")
    if wheels is None:
        return
    lock, target = locks[runtime].read_text(encoding="utf-8"), staging / "wheels"
    if wheels.place:
        own = {name_of(block) for block in blocks(lock) if "==" in block}
        own -= {name_of(block) for block in blocks(locks[CPU].read_text(encoding="utf-8"))}
        made = replaced(lock, own, wheels, target, folder.name)
        (staging / locks[runtime].name).write_text(made, encoding="utf-8")
        lock = "".join(block for block in blocks(lock) if name_of(block) not in own)
        wheels = replace(wheels, place="")
    download(lock, wheels, target, folder.name)


def _run_own_build(folder: Path, staging: Path) -> None:
    """What is fetched or computed, a model bundle as a whole: `build(out)` of build.py, with the tools of .venv.

    Raises FetchError, and BundleError for a bundle whose files are not those that its model.json gives.
    """
    runpy.run_path(str(folder / "build.py"))["build"](staging)
    if (staging / "model.json").exists():
        importlib.import_module("edgeml.models").load(staging)


def _zip(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())


def _in_venv() -> None:
    """Continue under .venv's interpreter, which has what model bundles are made with."""
    python = ROOT / ".venv" / "bin" / "python"
    if Path(sys.prefix).resolve() == (ROOT / ".venv").resolve():
        return
    subprocess.run([str(ROOT / "scripts" / "setup")], check=True, timeout=1800)
    os.execv(python, [str(python), __file__, *sys.argv[1:]])  # noqa: S606


def _chosen(platform: str, python: str) -> tuple[Wheels | None, str]:
    """What --wheels and --python stand for. A version alone names the wheels, and leaves the recipes as they are."""
    if not platform:
        return None, interpreter(python or PYTHON)
    compatible_platforms(platform)
    version = re.fullmatch(r"(.*python)?(3\.\d{1,2})", python) if python else None
    if python and version is None:
        raise SystemExit(f"--python {python}: expected a version such as 3.13, or an interpreter that ends in one")
    wheels = Wheels(platform, version[2]) if version else Wheels(platform)
    return wheels, interpreter(python) if version and version[1] else PYTHON


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", default="", metavar="PLATFORM", help="carry wheels, e.g. manylinux_2_28_aarch64")
    parser.add_argument(
        "--python",
        default="",
        metavar="PYTHON",
        help="what the recipes run: python3.12 or /opt/python/bin/python3 (default: python3); with --wheels also 3.12",
    )
    parser.add_argument("--runtime", default=CPU, metavar="NAME", help="which lock is installed: cpu; cuda")
    parser.add_argument(
        "--runtime-from", default="", metavar="PLACE", help="index or folder of the runtime's own wheel, with --wheels"
    )
    parser.add_argument("--unprivileged", action="store_true", help="steps that need no root, where there are some")
    parser.add_argument("components", nargs="*", help="package names; default: this folder's, or all")
    arguments = parser.parse_args()
    wheels, python = _chosen(arguments.wheels, arguments.python)
    if arguments.runtime_from:
        if wheels is None or arguments.runtime == CPU:
            raise SystemExit("--runtime-from goes with --wheels and another --runtime than cpu: its wheel is carried")
        wheels = replace(wheels, place=arguments.runtime_from)
    known = component_folders()
    here = Path.cwd()
    chosen = arguments.components or ([here.name] if (here / "gdk-config.json").exists() else list(known))
    for package in chosen:
        if package not in known:
            raise SystemExit(f"no component {package!r}, there are {', '.join(known)}")
    lacking = [package for package in chosen if not (known[package] / "unprivileged.yaml").exists()]
    if arguments.unprivileged and lacking:
        raise SystemExit(f"--unprivileged is for log_shipper: {', '.join(lacking)} never needs root")
    if any((known[package] / "build.py").exists() for package in chosen):
        _in_venv()
    for package in chosen:
        made = build(
            known[package], wheels, unprivileged=arguments.unprivileged, python=python, runtime=arguments.runtime
        )
        print(made.relative_to(ROOT), flush=True)


if __name__ == "__main__":
    main()
