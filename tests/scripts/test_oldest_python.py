"""Python 3.10, the oldest on devices: what neither types nor the linter's target say of components and recipes.

Where there is a python3.10, it runs what needs no package; the rest is a pretence of what it lacks.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from edgeml import install
from install_support import command, make_artifact
from support import ROOT

OLDEST = ".".join(map(str, install.MINIMUM))
FILES = sorted(path for path in (ROOT / "components").rglob("*.py") if "greengrass-build" not in path.parts)
RECIPES = [*sorted((ROOT / "recipes").glob("*.yaml")), *sorted((ROOT / "components").glob("*/unprivileged.yaml"))]
OPTIONS = set("bBcdEhiImOqsSuvVWxX")  # of python3.10 -h
COMMAND = re.compile(r"""(?:python3|/bin/python"?) ((?:-\w+ )*)""")
INLINE = re.compile(r"python3 -I -c '\n(.*?)'", re.DOTALL)
NEWER = re.compile(
    r"""["']-P["']|\(\?>|\bre\.\w+\(.*[^\\\['][*+?}]\+"""
)  # an option, an atomic group, a possessive repetition
# Prints the code of each error, caused for real, and what users are told of each pattern.
ERRORS = """
import json, os, re, sqlite3, sys
sys.path.insert(0, sys.argv[1])
from edgeml import sqlite_codes as codes, patterns
def caused(cause):
    try: cause()
    except sqlite3.Error as error: return codes.result_code(error) & 0xFF
def write(name, text): open(name, "wb").write(text)
def db(name): return sqlite3.connect(name, timeout=0, isolation_level=None)
def not_one(): write("a", b"garbage" * 1000); db("a").execute("SELECT * FROM t")
def malformed():
    with db("b") as made: made.execute("CREATE TABLE t (a)"); made.execute("INSERT INTO t VALUES (zeroblob(9000))")
    write("b", open("b", "rb").read()[:4096] + b"\\xff" * 12288); db("b").execute("SELECT * FROM t").fetchall()
def full(): it = db("c"); it.execute("PRAGMA max_page_count = 2"); it.execute("CREATE TABLE t AS SELECT zeroblob(9999)")
def readonly(): sqlite3.connect("file:b?mode=ro", uri=True).execute("CREATE TABLE u (a)")
def busy(): one, two = db("d"), db("d"); one.execute("BEGIN EXCLUSIVE"); two.execute("BEGIN EXCLUSIVE")
def unknown(): db("e").execute("SELECT * FROM nothing")
def reason(pattern):
    try: re.compile(pattern)
    except re.error as error: return patterns.reason(error)
found = {cause.__name__: caused(cause) for cause in (not_one, malformed, full, readonly, busy, unknown)}
print(json.dumps([found, [reason(pattern) for pattern in ("(?>a)", "a++", "a{2}+", "a)", "a")]]))
"""


@pytest.fixture(scope="module")
def oldest() -> str:
    found = shutil.which(f"python{OLDEST}")
    if found is None:
        pytest.skip(f"no python{OLDEST} on PATH")
    tried = subprocess.run([found, "-c", "import venv, ensurepip"], capture_output=True, text=True, timeout=20)
    if tried.returncode:
        pytest.skip(f"{found} does not run: {tried.stderr.strip().splitlines()[0]}")
    return found


def test_no_recipe_runs_python_with_an_option_that_the_oldest_does_not_know() -> None:
    found = {}
    for path in RECIPES:
        words = " ".join(COMMAND.findall(path.read_text(encoding="utf-8"))).split()
        found[path.name] = set("".join(word.strip("-") for word in words))
    assert sum(map(bool, found.values())) >= 9
    assert {name: options - OPTIONS for name, options in found.items() if options - OPTIONS} == {}


def test_scripts_within_recipes_are_of_the_oldest_python() -> None:
    scripts = [script for path in RECIPES for step in steps(path) for script in INLINE.findall(step)]
    assert len(scripts) == 3
    for script in scripts:
        ast.parse(script, feature_version=install.MINIMUM)


def steps(path: Path) -> Iterator[str]:
    raw = yaml.load(path.read_bytes(), yaml.CSafeLoader)
    lifecycles = [manifest["Lifecycle"] for manifest in raw["Manifests"]] if "Manifests" in raw else [raw]
    yield from (step["Script"] if isinstance(step, dict) else step for one in lifecycles for step in one.values())


def test_no_component_starts_python_or_writes_a_pattern_that_only_newer_ones_know() -> None:
    assert [
        f"{path.relative_to(ROOT)}:{number}: {line}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if NEWER.search(line) and path.name != "patterns.py"
    ] == []


@pytest.mark.parametrize(
    "line",
    ["[python, '-P', x]", 'R = r"(?>a|b)"', 're.compile(r"a++")', 're.compile(r"\\d{2}+")', "re.match('.*+', x)"],
)
def test_what_is_newer(line: str) -> None:
    assert NEWER.search(line)


def test_who_waits_for_futures_knows_their_timeout() -> None:
    """Before Python 3.11 it is no TimeoutError, which no types say."""
    waits = re.compile(r"\.result\(timeout|asyncio\.wait_for\(")
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
    assert [
        name for name, text in texts.items() if waits.search(text) and re.search(r"except \(?TimeoutError", text)
    ] == []
    assert [name for name, text in texts.items() if waits.search(text)] == ["components/edgeml/ipc.py"]
    assert "concurrent.futures.TimeoutError" in texts["components/edgeml/asking.py"]  # where ipc.py's are translated


def test_errors_mean_the_same(oldest: str, tmp_path: Path) -> None:
    told = {}
    for python in (oldest, sys.executable):
        (folder := tmp_path / Path(python).name).mkdir()
        script = [python, "-I", "-B", "-c", ERRORS, str(ROOT / "components")]
        done = subprocess.run(script, cwd=folder, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        told[python] = json.loads(done.stdout)
    (codes, reasons), (newer_codes, newer_reasons) = told[oldest], told[sys.executable]
    assert newer_codes == {"not_one": 26, "malformed": 11, "full": 13, "readonly": 8, "busy": 5, "unknown": 1}
    assert codes == newer_codes | {"not_one": 11}  # a file that is none counts as one that is damaged
    assert newer_reasons == [None, None, None, "unbalanced parenthesis at position 1", None]
    assert all("need Python 3.11, expected others" in reason for reason in reasons[:3])
    assert reasons[3:] == newer_reasons[3:]


def test_the_oldest_python_installs(oldest: str, tmp_path: Path) -> None:
    artifact, work = make_artifact(tmp_path / "artifact", "1"), tmp_path / "work"
    work.mkdir()
    step = [oldest, *command(artifact, "stubs")[1:]]
    done = subprocess.run(step, cwd=work, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    version = "import sys, tiny; print(*sys.version_info[:2], sep='.')"
    ran = subprocess.run([str(work / "venv" / "bin" / "python"), "-I", "-c", version], capture_output=True, text=True)
    assert ran.stdout.strip() == OLDEST
