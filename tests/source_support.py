"""What Python source says, read from its syntax tree: which names it calls, with which words, and what it imports."""

import ast
from collections.abc import Iterator
from pathlib import Path


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Calls of functions or methods with these names; of all, without names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (called(node) in names or not names):
            yield node


def called(call: ast.Call) -> str:
    """`b` of `b()` and of `a.b()`, "" for other calls."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def word(node: ast.expr | None) -> str:
    """A text that stands there as it is, "" for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def first_word(call: ast.Call) -> str:
    """The first argument, if it is such a text."""
    return word(call.args[0]) if call.args else ""


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((given.value for given in call.keywords if given.arg == name), None)


def after_name(tree: ast.AST, name: str) -> Iterator[str]:
    """What follows that variable in f-strings: `/b` of f"{name}/b"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, following in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and ast.unparse(value.value) == name:
                    yield word(following)


def variables(tree: ast.AST) -> tuple[set[str], set[str]]:
    """The environment variables that a program demands, and those that it can do without."""
    demanded = {
        word(node.slice)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ"
    }
    return demanded, {first_word(call) for call in calls(tree) if ast.unparse(call.func) == "os.environ.get"}


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules from which names are imported."""
    return (node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module)
