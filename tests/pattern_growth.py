"""Times the components' regular expressions over growing texts: `python tests/pattern_growth.py [PATTERN...]`.

Prints how many there were, or the first one that takes more than linear time, and then ends with 1. One that takes
exponential time ends the process by its limit of CPU time; its name is the last line then.
"""

import ast
import importlib
import pkgutil
import re
import signal
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = ROOT / "components"
SMALL, LARGE = 1_000, 4_000  # characters
GROWTH = 8  # a fourfold length takes fourfold time where that is linear, sixteenfold where it is quadratic
TOO_SHORT_S = 0.004  # what takes less cannot be measured, and at this length is not superlinear
LOOKS = 3
LOOK_S = 0.05  # the kernel may count CPU time in ticks of 4 ms: a sum of so many as this takes, never one alone
CPU_S, CPU_OF_ONE_S = 40.0, 0.5
SEEDS = (
    "0", " ", ".", ":", '"', "'", "\t", "a", "(", "[", "-", "=", "/", "\\", "?", "&", "@", "*", ",", "\n",
    "0.", "0 ", "a ", "a: ", "1: ", " (0", " [ ", "\x1b[0", '\\"', "a=b ", "a='", "x://", "a/", "a.", "?a=", "0:0",
)  # fmt: skip
HEADS = ("", " a: ")
METHODS = {"match", "search", "fullmatch", "sub", "subn", "findall", "finditer", "split"}


def modules() -> Iterator[Any]:
    for info in pkgutil.walk_packages([str(COMPONENTS)]):
        if not info.name.endswith("__main__"):
            yield importlib.import_module(info.name)


def found() -> dict[str, tuple[re.Pattern[Any], set[str]]]:
    """By place: each pattern, and the methods that it is used with."""
    patterns: dict[str, tuple[re.Pattern[Any], set[str]]] = {}
    for module in modules():
        here = {name: value for name, value in vars(module).items() if isinstance(value, re.Pattern)}
        source = Path(module.__file__).read_text()
        if not here and "import re\n" not in source and "pattern=" not in source:
            continue
        tree = ast.parse(source)
        nodes = [*ast.walk(tree)]
        named = {
            id(node) for line in tree.body if isinstance(line, ast.Assign | ast.AnnAssign) for node in ast.walk(line)
        }
        calls = [node for node in nodes if isinstance(node, ast.Call) and id(node) not in named]
        used: dict[str, set[str]] = {}
        for node in nodes:  # calls, and methods handed to map and its like
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in METHODS:
                used.setdefault(node.value.id, set()).add(node.attr)
        for name, value in here.items():
            patterns[f"{module.__name__}.{name}"] = value, used.get(name, set()) or {"fullmatch", "search"}
        for call in calls:
            if text := inline(call):
                method = call.func.attr if isinstance(call.func, ast.Attribute) else "search"
                methods = {method} if method in METHODS else {"fullmatch", "search"}
                patterns[f"{module.__name__}:{call.lineno}"] = re.compile(text), methods
    return patterns


def inline(call: ast.Call) -> str | bytes | None:
    """The pattern of `re.search("...", text)` and of `Meta(pattern="...")`."""
    function = call.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "re":
        first = call.args[0] if call.args else None
        if function.attr in METHODS | {"compile"} and isinstance(first, ast.Constant):
            return first.value if isinstance(first.value, str | bytes) else None
    for keyword in call.keywords:
        if (
            keyword.arg == "pattern"
            and isinstance(keyword.value, ast.Constant)
            and isinstance(keyword.value.value, str)
        ):
            return keyword.value.value
    return None


@cache
def texts(size: int) -> list[str]:
    made = []
    for seed in SEEDS:
        for head in HEADS:
            body = head + seed * (size // len(seed))
            made += [body, body + "\x00!"]
    return made


def apply(pattern: re.Pattern[Any], method: str, text: str) -> None:
    given: Any = text if isinstance(pattern.pattern, str) else text.encode()
    if method in ("sub", "subn"):
        getattr(pattern, method)("" if isinstance(given, str) else b"", given)
    elif method == "finditer":
        for _ in pattern.finditer(given):
            pass
    else:
        getattr(pattern, method)(given)


def took(pattern: re.Pattern[Any], method: str, text: str) -> float:
    began = time.process_time()
    apply(pattern, method, text)
    return time.process_time() - began


def superlinear(pattern: re.Pattern[Any], method: str) -> str:
    """The beginning of a text that shows it; empty where there is none."""
    for small, large in zip(texts(SMALL), texts(LARGE), strict=True):
        for exponential in (small[:24], small[:400]):
            apply(pattern, method, exponential)
        if took(pattern, method, small) > 50 * TOO_SHORT_S:
            return repr(small[:20])
        if took(pattern, method, large) >= TOO_SHORT_S and grows(pattern, method, small, large):
            return repr(small[:20])
    return ""


def grows(pattern: re.Pattern[Any], method: str, small: str, large: str) -> bool:
    """Whether each of some looks shows it: a busy machine disturbs some of them, a superlinear pattern is it in all."""
    for _ in range(LOOKS):
        shorter = longer = rounds = 0.0
        while longer < LOOK_S and rounds * TOO_SHORT_S < LOOK_S:
            shorter += took(pattern, method, small)
            longer += took(pattern, method, large)
            rounds += 1
        if longer <= max(rounds * TOO_SHORT_S, GROWTH * shorter):
            return False
    return True


def main(given: list[str]) -> int:
    patterns = {text: (re.compile(text), {"fullmatch", "search"}) for text in given} or found()
    signal.setitimer(signal.ITIMER_PROF, CPU_OF_ONE_S if given else CPU_S)
    wrong = 0
    for place, (pattern, methods) in patterns.items():
        for method in sorted(methods):
            print(place, method, file=sys.stderr, flush=True)
            if text := superlinear(pattern, method):
                print(f"superlinear: {place}.{method}, on text like {text}: {pattern.pattern!r}", flush=True)
                wrong += 1
    print(f"{len(patterns)} patterns")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
