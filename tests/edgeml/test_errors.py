"""Where errors are found: in `errors.py` of edgeml, or of the component that adds them."""

import ast
import re

import pytest

from edgeml.errors import IpcError, IpcRefusedError, UnauthorizedError
from edgeml.problems import ADVICE
from support import ROOT

COMPONENTS = ROOT / "components"


def classes() -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """The classes of each file of the components: name and bases."""
    found = {}
    for path in COMPONENTS.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found[str(path.relative_to(COMPONENTS))] = [
            (node.name, tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases))
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
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
    there = "\n".join(path.read_text(encoding="utf-8") for path in COMPONENTS.rglob("errors.py"))
    codes = set(re.findall(r'^    code = "(.+)"$', there, re.MULTILINE))
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
    path = COMPONENTS / file / "errors.py"
    above: list[str] = []
    drawn = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"# ((?: [│ ]   )*)( [├└]── )?(\w+)(?: {2}.*)?", line):
            depth = (len(match[1]) + len(match[2] or "")) // 5
            above[depth:] = [match[3]]
            drawn |= {(match[3], above[depth - 1])} if depth else set()
    there = {(name, bases[0]) for name, bases in classes()[f"{file}/errors.py"] if bases[0] != "Exception"}
    assert there <= drawn
    assert {name for name, _ in drawn} - {name for name, _ in there} <= {"CloudError"}  # where another file's are drawn
