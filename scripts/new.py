"""Writes the shape of a new component: package, recipe, GDK configuration, links, README, schema and test.

It is a copy of scripts/template under another name: a component that runs, to be changed into what it is to do.
"""

import argparse
import importlib.util
import keyword
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "scripts" / "template"
LOCKED = ("requirements.in", "requirements.lock")  # of the example, which imports no more than a new one does
EXAMPLE = ROOT / "components" / "sample_requester"
MAX_NAME = 32
NEXT = """
{component} runs already:
  ./scripts/test tests/{package}
  ./scripts/build {package}
Next: what it is to do, in components/{package}/component.py and config.py; .venv/bin/python scripts/docs.py then writes
the README's table, the schema and the recipe's defaults. A row for it in README.md and in tests/benchmarks/startup.py.
CONTRIBUTING.md has the walk-through."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of its package, such as tank_level, which makes edgeml.TankLevel")
    package = parser.parse_args().name
    made = write(package)
    sources = [str(path) for path in made if path.suffix == ".py"]
    for command in (
        ["-m", "ruff", "check", "--quiet", "--fix", *sources],  # imports are sorted by name
        ["-m", "ruff", "format", "--quiet", *sources],
        ["scripts/docs.py"],
    ):
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, timeout=120)
    print(*(path.relative_to(ROOT) for path in made), sep="\n")
    print(NEXT.format(package=package, component=f"edgeml.{class_name(package)}"))
    return 0


def write(package: str) -> list[Path]:
    """Copy the template under another name; the paths made. Raises SystemExit for a name that cannot be had."""
    refuse(package)
    sources = [path for path in sorted(TEMPLATE.rglob("*")) if path.is_symlink() or path.is_file()]
    copies = {
        source: ROOT / _replaced(str(source.relative_to(TEMPLATE)), package)
        for source in sources
        if "__pycache__" not in source.parts
    }
    for target in copies.values():
        if target.exists() or target.is_symlink():
            raise SystemExit(f"{package}: {target.relative_to(ROOT)} is there already")
    for source, target in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(_replaced(str(source.readlink()), package))
        else:
            target.write_text(_replaced(source.read_text(encoding="utf-8"), package), encoding="utf-8")
    for name in LOCKED:
        shutil.copyfile(EXAMPLE / name, ROOT / "components" / package / name)
    _make_known(package)
    return list(copies.values())


def _make_known(package: str) -> None:
    """Put the package among those that the contracts of pyproject.toml are about."""
    path = ROOT / "pyproject.toml"
    before, head, rest = path.read_text(encoding="utf-8").partition("root_packages = [\n")
    listed, tail, after = rest.partition("]\n")
    lines = sorted({*listed.splitlines(keepends=True), f'  "{package}",\n'})
    path.write_text("".join((before, head, *lines, tail, after)), encoding="utf-8")


def refuse(package: str) -> None:
    """SystemExit for a name that Python, Greengrass or another module would trip over."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", package) or len(package) > MAX_NAME:
        raise SystemExit(f"{package!r}: expected a package name of at most {MAX_NAME} characters such as tank_level")
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        raise SystemExit(f"{package}: is a word of Python")
    for root in (ROOT / "components", ROOT / "components" / "model_store", ROOT / "scripts", ROOT / "tests"):
        if (root / package).exists() or (root / f"{package}.py").exists():
            raise SystemExit(f"{package}: {root.relative_to(ROOT)} has that name already")
    if package in sys.stdlib_module_names or importlib.util.find_spec(package) is not None:
        raise SystemExit(f"{package}: there is a module of that name already, which one of the two would hide")


def class_name(package: str) -> str:
    """tank_level -> TankLevel"""
    return "".join(part.capitalize() for part in package.split("_"))


def _replaced(text: str, package: str) -> str:
    return text.replace("new_component", package).replace("NewComponent", class_name(package))


if __name__ == "__main__":
    raise SystemExit(main())
