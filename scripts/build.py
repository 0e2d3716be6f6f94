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
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS = ROOT / "components"
EPOCH = (1980, 1, 1, 0, 0, 0)
LEFT_OUT = {
    "__pycache__",
    "greengrass-build",
    "zip-build",
    "README.md",
    "requirements.in",
    "requirements.lock",
    "build.py",
    "unprivileged.yaml",
    "grafana.json",
    "screenshots",
}
DIGEST = "SHA256_OF_ZIP"  # in recipes whose script compares the archive with it
LINKS = {"recipe.yaml", "gdk-config.json"}
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


@dataclass(frozen=True)
class Wheels:
    """The machine whose wheels an artifact carries; Python as 3.13."""

    platform: str
    python: str = f"{sys.version_info.major}.{sys.version_info.minor}"


def component_folders() -> dict[str, Path]:
    """Every component's folder by package name."""
    configured = [*COMPONENTS.glob("*/gdk-config.json"), *COMPONENTS.glob("*/*/gdk-config.json")]
    return {path.parent.name: path.parent for path in sorted(configured)}


def build(folder: Path, wheels: Wheels | None = None, *, unprivileged: bool = False, python: str = PYTHON) -> Path:
    """Build one component, whose steps run `python`; the path of its greengrass-build folder.

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
    target = folder / "greengrass-build"
    shutil.rmtree(target, ignore_errors=True)
    artifacts = target / "artifacts" / name / version
    artifacts.mkdir(parents=True)
    (target / "recipes").mkdir()
    archive = artifacts / f"{folder.name}.zip"
    with tempfile.TemporaryDirectory() as staging:
        _stage(folder, Path(staging), wheels)
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


def _stage(folder: Path, staging: Path, wheels: Wheels | None) -> None:
    if (folder / "requirements.lock").exists():  # model bundles hold no code
        _stage_code(folder, staging, wheels)
    if (folder / "build.py").exists():
        _run_own_build(folder, staging)


def _stage_code(folder: Path, staging: Path, wheels: Wheels | None) -> None:
    for package in (folder, COMPONENTS / "edgeml"):
        shutil.copytree(
            package,
            staging / package.name,
            ignore=lambda _, names: [n for n in names if n in LEFT_OUT | LINKS or n.endswith(".pyc")],
        )
    (staging / "__main__.py").write_text(MAIN.format(package=folder.name), encoding="utf-8")
    shutil.copy(folder / "requirements.lock", staging)
    if wheels:
        _download_wheels(folder / "requirements.lock", wheels, staging / "wheels")


def _run_own_build(folder: Path, staging: Path) -> None:
    """What is fetched or computed, a model bundle as a whole: `build(out)` of build.py, with the tools of .venv.

    Raises FetchError, and BundleError for a bundle whose files are not those that its model.json gives.
    """
    runpy.run_path(str(folder / "build.py"))["build"](staging)
    if (staging / "model.json").exists():
        importlib.import_module("edgeml.models").load(staging)


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
    for block in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE):
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


def _download_wheels(lock: Path, wheels: Wheels, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--only-binary", ":all:", "--no-deps", "--require-hashes"]
    pip += ["--python-version", wheels.python, "-d", str(target)]
    pip += [part for tag in compatible_platforms(wheels.platform) for part in ("--platform", tag)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(pinned(lock.read_text(encoding="utf-8"), wheels.python))
        requirements.flush()
        done = subprocess.run(
            [*pip, "-r", requirements.name], check=False, timeout=900, stderr=subprocess.PIPE, text=True
        )
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), done.stderr.strip())
        raise SystemExit(f"{lock.parent.name}: no wheels for {wheels.platform}, Python {wheels.python}: {reason[:300]}")


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
    parser.add_argument("--unprivileged", action="store_true", help="steps that need no root, where there are some")
    parser.add_argument("components", nargs="*", help="package names; default: this folder's, or all")
    arguments = parser.parse_args()
    wheels, python = _chosen(arguments.wheels, arguments.python)
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
        made = build(known[package], wheels, unprivileged=arguments.unprivileged, python=python)
        print(made.relative_to(ROOT), flush=True)


if __name__ == "__main__":
    main()
