"""Who imports whom, where import-linter does not look: handlers, training, build.py files, and tests.

Handlers are all modules named `app`, loaded by path as Lambda does; the others are files of no package, or what
packages import of such. The contracts of packages stand in pyproject.toml, and must know every package.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {  # of ours, beside the modules of the file's own folder
    "cloud/functions/*/*.py": set[str](),
    "cloud/training/*.py": {"edgeml"},
    "cloud/*.py": set[str](),
    "components/*/build.py": {"bundles", "edgeml"},
    "components/model_store/*/build.py": {"bundles", "edgeml"},
    "scripts/bundles/**/*.py": {"bundles"},
    "scripts/deployment/**/*.py": {"deployment", "edgeml"},  # by importlib, when a configuration is looked at
    "scripts/localdev/**/*.py": {"build", "bundles", "localdev"},
}


def main() -> int:
    problems = [*forbidden(ROOT), *tests_imported(ROOT), *unknown_packages(ROOT)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def forbidden(root: Path) -> Iterator[str]:
    """Imports of ours that ALLOWED does not allow, by file and line."""
    all_of_ours = ours(root)
    for pattern, allowed in ALLOWED.items():
        for path in sorted(root.glob(pattern)):
            beside = set() if (path.parent / "__init__.py").exists() else modules(path.parent)
            for line, name in imports(path):
                if name in all_of_ours - allowed - beside:
                    may = ", ".join(sorted(allowed)) or "nothing of ours"
                    yield f"{path.relative_to(root)}:{line}: imports {name}; {pattern} may import {may}"


def tests_imported(root: Path) -> Iterator[str]:
    """Imports of what stands in tests alone, by anything outside of it."""
    of_tests = (modules(root / "tests") | {"tests"}) - modules(root / "components") - modules(root / "scripts")
    of_tests -= {"cloud", "scripts"}  # folders here, no modules
    named = re.compile(rf"\b(?:{'|'.join(of_tests)})\b")  # in few files, and to parse them all takes a second
    for top in ("components", "scripts", "cloud"):
        for path in sorted((root / top).rglob("*.py")):
            if {"template", "greengrass-build", "zip-build"} & set(path.relative_to(root).parts):
                continue
            for line, name in imports(path) if named.search(path.read_text(encoding="utf-8")) else ():
                if name in of_tests:
                    yield f"{path.relative_to(root)}:{line}: imports {name}, which is a test's"


def unknown_packages(root: Path) -> Iterator[str]:
    """Packages that the contracts in pyproject.toml would not see."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    known = set(settings["tool"]["importlinter"]["root_packages"])
    for top in ("components", "scripts"):
        for path in sorted((root / top).glob("*/__init__.py")):
            if path.parent.name not in known:
                yield f"pyproject.toml: tool.importlinter.root_packages lacks {path.parent.name}"


def ours(root: Path) -> set[str]:
    """Names under which code of ours is imported."""
    roots = ("components", "scripts", "tests", "cloud/training", "cloud")
    return {"components", "cloud", "tests"}.union(*(modules(root / name) for name in roots))


def modules(folder: Path) -> set[str]:
    """What `folder`, as a source root, makes importable."""
    return {
        path.stem for path in folder.glob("*") if path.suffix == ".py" or (path.is_dir() and path.name.isidentifier())
    } - {"__init__", "__pycache__"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, first name) of each import of a file, those by importlib with a fixed name too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if not node.level else []
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__"):
            names = [str(word.value) for word in node.args[:1] if isinstance(word, ast.Constant)]
        else:
            continue
        for name in names:
            yield node.lineno, name.partition(".")[0]


def _called(function: ast.expr) -> str:
    """The last of its names."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


if __name__ == "__main__":
    raise SystemExit(main())
