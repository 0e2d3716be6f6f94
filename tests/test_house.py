"""The tests' own house: they ask what any user of a part may ask, and a file of them is read in one sitting."""

import ast
import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support import ROOT

TESTS = ROOT / "tests"
LINES = 300
PUBLIC = {"_asdict", "_exit", "_fields", "_make", "_replace"}  # of the standard library, by its documentation
SETTERS = {"delattr", "getattr", "hasattr", "setattr"}
OURS = {path.stem for top in ("components", "scripts", "tests", "cloud/training") for path in (ROOT / top).iterdir()}


def test_no_test_reads_the_private_names_of_another_part() -> None:
    found = {name: " ".join(sorted(names)) for name, text in texts().items() if (names := set(read_by(name, text)))}
    assert found == {}


def test_a_file_of_tests_is_read_in_one_sitting() -> None:
    assert [name for name, text in texts().items() if len(text.splitlines()) > LINES] == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("self._a; cls._a; super()._a; a.__name__; a.b; a._replace(b=1)", set()),
        ("a._b; a.c._d()", {"_b", "_d"}),
        ("getattr(a, '_b'); patch.setattr(a, '_c', 1); patch.setattr('edgeml.ipc._d', 1)", {"_b", "_c", "_d"}),
        ("patch.setattr(a, 'b', 1); setattr(a, name, '_b')", set()),
        ("import _socket; from _socket import _x; from os import _exit", set()),
        ("from edgeml import _a, b", {"_a"}),
        ("import edgeml._a", {"_a"}),
        ("from edgeml._worker import W; from edgeml import _worker", {"_worker"}),
        ("from support import _a", {"_a"}),
        ("run('import a; a._b()')", {"_b"}),
    ],
)
def test_what_is_private(source: str, names: set[str]) -> None:
    assert set(read_by("folder/test_it.py", source)) == names


def test_a_private_module_may_have_a_test_of_its_own() -> None:
    source = "from edgeml import _worker; from edgeml._worker import Worker"
    assert set(read_by("edgeml/test_worker.py", source)) == set()


@cache
def texts() -> dict[str, str]:
    """The other tests and what stands beside them, by their path below tests."""
    found = (path for path in sorted(TESTS.rglob("*.py")) if path != Path(__file__).resolve())
    return {str(path.relative_to(TESTS)): path.read_text(encoding="utf-8") for path in found}


def read_by(name: str, text: str) -> Iterator[str]:
    """Private names of others in a text; most hold nothing that looks so, and need not be parsed."""
    others = text.replace("self._", "").replace("cls._", "")
    signs = any(sign in others for sign in ("._", '"_', "'_", "import _"))
    if signs or any("import" in line and ", _" in line for line in others.splitlines()):
        yield from private(name, ast.parse(text))


def private(name: str, tree: ast.Module) -> Iterator[str]:
    """Private names of other objects and of our modules, in the file of that name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not _itself(node.value):
            yield from _private(node.attr)
        elif isinstance(node, ast.Call) and _called(node) in SETTERS:
            for given in node.args[:2]:
                if isinstance(given, ast.Constant) and isinstance(given.value, str):
                    yield from _private(given.value.rpartition(".")[2])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
            with contextlib.suppress(SyntaxError):  # of a text that is no code
                yield from private(name, ast.parse(node.value))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for module in _imported(node):
                package, _, rest = module.partition(".")
                if package in OURS and not _mirrored(name, package, rest):
                    yield from (part for word in rest.split(".") for part in _private(word))


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    within = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return [within + alias.name for alias in node.names]


def _mirrored(name: str, package: str, module: str) -> bool:
    """Whether a file is the unit test of a private module: tests/edgeml/test_worker.py of edgeml._worker."""
    path = Path(name)
    return (path.parts[0], path.stem) == (package, f"test{module.partition('.')[0]}")


def _called(call: ast.Call) -> str:
    """`b` of `b()` and of `a.b()`."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _itself(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return _called(value) == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def _private(name: str) -> list[str]:
    return [name] if name.startswith("_") and not name.startswith("__") and name not in PUBLIC else []
