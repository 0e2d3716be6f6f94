"""Where errors are found: in `errors.py` of edgeml, or of the component that adds them."""

import importlib
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from edgeml.errors import EdgemlError, IpcError, IpcRefusedError, UnauthorizedError
from edgeml.problems import ADVICE
from support import ROOT

COMPONENTS = ROOT / "components"
CLASS = re.compile(r"^ *class (\w+)(?:\(([^)]*)\))?:", re.MULTILINE)


@cache
def classes() -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """The classes of each file of the components: name and bases."""
    found = {}
    for path in COMPONENTS.rglob("*.py"):
        found[str(path.relative_to(COMPONENTS))] = [
            (name, tuple(base.strip().rpartition(".")[2] for base in bases.split(",")))
            for name, bases in CLASS.findall(path.read_text(encoding="utf-8"))
        ]
    return found


def test_every_error_of_ours_is_in_a_file_of_errors() -> None:
    ours, files = {"EdgemlError"}, classes()
    while True:
        more = {name for each in files.values() for name, bases in each if ours.intersection(bases)}
        if more <= ours:
            break
        ours |= more
    assert len(ours) > 30
    elsewhere = [(file, name) for file, each in files.items() for name, _ in each if name in ours]
    assert [found for found in elsewhere if not found[0].endswith("errors.py")] == []


def test_the_problem_that_an_error_is_has_advice() -> None:
    modules = [importlib.import_module(f"{path.parent.name}.errors") for path in COMPONENTS.glob("*/errors.py")]
    kinds = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    codes = {kind.code for kind in kinds if issubclass(kind, EdgemlError) and kind.code}
    assert len(codes) > 8
    assert codes <= ADVICE.keys()
    assert (UnauthorizedError("x").code, IpcRefusedError("x").code, IpcError("x").code) == (
        "unauthorized",
        "refused",
        "",
    )


@pytest.mark.parametrize(
    "file", ["edgeml", "log_shipper", "model_updater", "edge_impulse_runner"], ids=lambda name: f"{name}/errors.py"
)
def test_the_tree_that_is_drawn_is_the_tree_there_is(file: str) -> None:
    there = {(name, bases[0]) for name, bases in classes()[f"{file}/errors.py"] if bases[0] != "Exception"}
    tree = set(drawn(COMPONENTS / file / "errors.py"))
    assert there <= tree
    assert {name for name, _ in tree} - {name for name, _ in there} <= {"CloudError"}  # where another file's are drawn


def drawn(path: Path) -> Iterator[tuple[str, str]]:
    """Each error of the tree in a file's comments, and the one above it."""
    above: list[str] = []
    with path.open("rb") as file:
        comments = [token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
    for comment in comments:
        branches, branch, told = comment.removeprefix("# ").rpartition("── ")
        depth = len(branches) // 5 + 1 if branch else 0
        above[depth:] = [told.partition(" ")[0]]
        if branch:
            yield above[depth], above[depth - 1]
