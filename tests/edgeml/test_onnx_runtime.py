"""ONNX Runtime is imported in few places, and told before that it is to send nothing home."""

import ast
from pathlib import Path

from support import ROOT

PLACES = {  # the components', an example of a helper, the stand-ins for AWS that run models, and what makes variants
    "components/edgeml/onnx_session.py",
    "scripts/bundles/calibrate.py",
    "scripts/bundles/emulated.py",
    "scripts/bundles/half.py",
    "scripts/bundles/quantize.py",
    "scripts/external_helper.py",
    "scripts/localdev/cloud/container.py",
    "scripts/localdev/cloud/faces.py",
}


def test_onnxruntime_is_imported_in_few_places_right_after_its_opt_out() -> None:
    sources = [path for top in ("components", "cloud", "scripts") for path in (ROOT / top).rglob("*.py")]
    found = {path: importing(path) for path in sources if "zip-build" not in path.parts}
    assert {str(path.relative_to(ROOT)) for path, imports in found.items() if imports} == PLACES
    for path, imports in found.items():
        for before in imports:
            assert before is not None, f"{path}: imported before anything else"
            assert ast.unparse(before) == "os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')", path


def importing(path: Path) -> list[ast.stmt | None]:
    """The statements before each import of onnxruntime, but for those for type checking."""
    if "onnxruntime" not in (text := path.read_text(encoding="utf-8")):
        return []
    blocks = [
        block
        for node in ast.walk(ast.parse(text))
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for block in (getattr(node, name, []) for name in ("body", "orelse", "finalbody"))
        if isinstance(block, list)
    ]
    return [
        next((before for before in reversed(block[:index]) if not of_onnxruntime(before)), None)
        for block in blocks
        for index, statement in enumerate(block)
        if of_onnxruntime(statement)
    ]


def of_onnxruntime(statement: ast.stmt) -> bool:
    return any(name.partition(".")[0] == "onnxruntime" for name in imported(statement))


def imported(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.ImportFrom):
        return [statement.module or ""]
    return [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
