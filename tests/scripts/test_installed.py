"""The tree is installed in .venv: nothing says where our modules are, and they run from anywhere."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeml
from support import ROOT, python_of

TOPS = (".ci", "cloud", "components", "scripts", "tests")
TEXTS = ("README.md", "CONTRIBUTING.md")
LEFT_OUT = {"__pycache__", "greengrass-build", "zip-build", "upgrade"}  # the last holds recipes of an earlier release
CHANGES = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"}
LOADS = {"SourceFileLoader", "addsitedir", "spec_from_file_location", "syspath_prepend"}
HINT = re.compile(r"sys\.path|PYTHONPATH|" + "|".join(sorted(LOADS)))

AS_LAMBDA = "a handler, loaded as Lambda does"
AS_ON_A_DEVICE = "a built artifact, run as on a device"
NOT_PASSED_ON = "what a component's process never gets, or does not heed"
OF_ITS_OWN = "an executable in a file, which starts at once, without the site's packages"
AS_PYTHON = "a fork that does with its arguments what Python does"
EXCEPTIONS = {
    "scripts/localdev/cloud/worker.py": AS_LAMBDA,
    "tests/benchmarks/handlers.py": AS_LAMBDA,
    "tests/cloud/test_imports.py": AS_LAMBDA,
    "tests/ota_support.py": AS_LAMBDA,
    "scripts/build.py": AS_ON_A_DEVICE,
    "tests/benchmarks/startup.py": AS_ON_A_DEVICE,
    "tests/privileged_support.py": AS_ON_A_DEVICE,
    "scripts/localdev/simulators/eim.py": OF_ITS_OWN,
    "tests/forked.py": AS_PYTHON,
    "tests/test_forked.py": AS_PYTHON,
    "tests/scripts/test_oldest_python.py": AS_ON_A_DEVICE,
    "scripts/localdev/core/state.py": NOT_PASSED_ON,
    "scripts/localdev/core/users.py": NOT_PASSED_ON,
    "tests/install_support.py": NOT_PASSED_ON,
    "tests/localdev/cloud/test_lambdas.py": NOT_PASSED_ON,
    "tests/localdev/core/test_lifecycle.py": NOT_PASSED_ON,
    "tests/localdev/core/test_users.py": NOT_PASSED_ON,
    "tests/model_updater/test_probe.py": NOT_PASSED_ON,
    "tests/scripts/test_recipes.py": NOT_PASSED_ON,
    "tests/scripts/test_installed.py": "its own words",
}


def files() -> Iterator[Path]:
    for path in (path for top in TOPS for path in sorted((ROOT / top).rglob("*"))):
        if path.is_file() and not path.is_symlink() and not LEFT_OUT & set(path.relative_to(ROOT).parts):
            yield path
    yield from (ROOT / name for name in TEXTS)


def found(source: str) -> Iterator[str]:
    """What a Python program says of where modules are, in the programs that it holds as text too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute | ast.Subscript) and "sys.path" in {
            ast.unparse(node),
            ast.unparse(node.value),
        }:
            changes = isinstance(node.ctx, ast.Store | ast.Del) or getattr(node, "attr", "") in CHANGES
            yield from ["sys.path is changed"] * changes
        names = [getattr(node, field, None) for field in ("id", "attr", "name", "arg")]
        yield from (name for name in names if isinstance(name, str) and name in LOADS | {"PYTHONPATH"})
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (f"text with {each}" for each in HINT.findall(node.value))


def told(path: Path) -> list[str]:
    text = path.read_bytes().decode(errors="replace")
    if path.suffix == ".py":
        return sorted(set(found(text))) if HINT.search(text) else []
    sets = re.compile(r"sys\.path|\bPYTHONPATH\s*[=:]|\"PYTHONPATH|" + "|".join(sorted(LOADS)))
    return sorted(set(sets.findall(text)))


def test_nothing_says_where_our_modules_are_but_for_what_runs_elsewhere() -> None:
    says = {str(path.relative_to(ROOT)): words for path in files() if (words := told(path))}
    assert {name: words for name, words in says.items() if name not in EXCEPTIONS} == {}
    assert EXCEPTIONS.keys() - says.keys() == set(), "exceptions that are none any more"


@pytest.mark.parametrize(
    "source",
    [
        "import sys; sys.path.insert(0, 'x')",
        "import sys; sys.path[:0] = ['x']",
        "import sys; sys.path += ['x']",
        "import sys; sys.path = ['x']",
        "import sys; del sys.path[0]",
        "environment = {'PYTHONPATH': 'x'}",
        "environment['PYTHONPATH'] = f'{a}:b'",
        "environment = dict(PYTHONPATH='x')",
        "monkeypatch.syspath_prepend('x')",
        "from importlib.util import spec_from_file_location as load",
        "code = 'import sys; sys.path.append(1)'",
        "code = f'import sys; sys.path.append({folder!r})'",
    ],
)
def test_it_is_found(source: str) -> None:
    assert list(found(source))


def test_where_modules_are_may_be_looked_at() -> None:
    assert list(found("import sys; print(sys.path, sys.path[0]); path.insert(0, 1)")) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "camera_capture", "--help"], "edgeml.CameraCapture"),
        (["-m", "localdev.core", "--help"], "scripts/core"),
        (["-I", "-c", "import edgeml; print(edgeml.__file__)"], str(ROOT / "components" / "edgeml")),
    ],
    ids=["a component", "the local core", "the library"],
)
def test_it_runs_from_another_folder(words: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_another_checkout_runs_its_own_modules(tmp_path: Path) -> None:
    (tmp_path / "components" / "edgeml").mkdir(parents=True)
    (tmp_path / "components" / "edgeml" / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    command = [python_of(tmp_path), "-c", "import edgeml, msgspec; print(edgeml.__file__)"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == str(tmp_path / "components" / "edgeml" / "__init__.py")
    assert Path(edgeml.__file__).is_relative_to(ROOT)
