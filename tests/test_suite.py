"""The suite's own machinery: what CI makes of failures, and reports that workers can send."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

# As scripts/test, on the tests of a folder, where each run of `test_it` takes the next word of `outcomes`. Without
# workers it leaves xdist out, whose import takes a third of such a run.
SCRIPT = """#!/bin/sh
cd "$(dirname "$0")/.."
case "$*" in
--numprocesses=0*) shift ;;
*-n*) set -- -p xdist "$@" ;;
esac
exec {python} -m pytest -q "$@"
"""
TEST = """
from pathlib import Path

def test_it():
    first, _, rest = Path("outcomes").read_text().partition(" ")
    Path("outcomes").write_text(rest)
    assert first == "passes"

def test_another():
    pass
"""


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "CI"))}
    environment = {**plain, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("outcomes", "code", "runs", "last"),
    [
        ("passes", 0, 1, "2 passed"),
        ("fails fails", 1, 2, "1 failed"),
        ("fails" + 6 * " passes", 0, 7, "1 passed"),
        ("fails passes passes fails", 1, 4, "1 failed"),
    ],
    ids=["good", "broken", "flaky", "too flaky"],
)
def test_what_fails_once_is_named_and_what_fails_again_fails_ci(
    tmp_path: Path, outcomes: str, code: int, runs: int, last: str
) -> None:
    made = ci(tmp_path, TEST)
    (tmp_path / "outcomes").write_text(outcomes)
    done = run(tmp_path, str(made))
    assert (done.returncode, (tmp_path / "outcomes").read_text()) == (code, ""), done.stdout + done.stderr
    closing = closing_lines(done.stdout)
    assert (len(closing), done.stdout.splitlines()[-1]) == (runs, closing[-1])
    assert closing[-1].startswith(last)
    named = "FLAKY, failed once and passed alone; run five times more:\n  tests/test_one.py::test_it\n" in done.stdout
    assert named == (runs > 2)


@pytest.mark.parametrize(("test", "code"), [("", 5), ("import nothing_of_this_name", 2)], ids=["none", "no import"])
def test_ci_ends_as_pytest_does_where_no_test_failed(tmp_path: Path, test: str, code: int) -> None:
    done = run(tmp_path, str(ci(tmp_path, test)))
    assert (done.returncode, len(closing_lines(done.stdout))) == (code, 1), done.stdout + done.stderr


def test_workers_that_collect_other_tests_fail_ci(tmp_path: Path) -> None:
    made = ci(tmp_path, "import os, pytest\n@pytest.mark.parametrize('n', [os.getpid()])\ndef test_it(n): pass\n")
    done = run(tmp_path, str(made), "-n", "2")
    assert (done.returncode, "Different tests were collected" in done.stdout) == (1, True), done.stdout + done.stderr


CROWDS = ["tests/integration/test_upgrade.py", "tests/localdev/demo/test_demo.py"]
OTHERS = ["tests/cloud/test_events.py", "tests/integration/test_ipc.py"]
ODD = {
    "test_content.py": """
import os, pytest
@pytest.mark.parametrize('content', [b'x', os.urandom(9), 'a' * 80 + str(os.getpid())])
def test_it(content): pass
""",
    "cloud/test_collected.py": """
import os, time
def note(text):
    with open('notes', 'a') as file: print(text, os.getpid(), file=file)
note('begins'); time.sleep(0.3); note('ends')
def test_it(): pass
""",
    "test_loops.py": """
import asyncio, time
async def sleep(): time.sleep(0.01)
def test_before(): time.sleep(0)
def test_it(): asyncio.run(sleep())
def test_after(): time.sleep(0.01)
""",
    "test_text.py": r"""
import logging, pytest
def test_log(record_property):
    logging.getLogger().warning('log \udcff'); print('out \udcfe'); record_property('a', '\udcfd')
def test_error(): raise ValueError('error \udcfc')
def test_skip(): pytest.skip('skip \udcfb')
@pytest.fixture
def broken(): raise ValueError('fixture \udcfa')
def test_fixture(broken): pass
""",
    **dict.fromkeys([*CROWDS, *OTHERS], "def test_it(worker_id): print(__file__, worker_id)\n"),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A fresh tree with odd tests and our conftest.py, and what pytest said of them with two workers."""
    tree = tmp_path_factory.mktemp("odd")
    for path, text in ODD.items():
        place = tree / "tests" / path.removeprefix("tests/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    shutil.copy(ROOT / "tests" / "conftest.py", tree / "tests")
    (tree / "pytest.ini").write_text("[pytest]\n")
    done = run(tree, sys.executable, "-m", "pytest", "-p", "xdist", "-n", "2", "--dist=loadfile", "-rA", "-v")
    assert done.stdout.splitlines()[-1].strip("= ").startswith("1 failed, 12 passed, 1 skipped, 2 errors in"), (
        done.stdout
    )
    return tree, done.stdout


def told_of(odd: tuple[Path, str], file: str) -> list[str]:
    """`PASSED test_it` and its like, of the tests of a file, sorted."""
    found = re.findall(rf"^(PASSED|FAILED|ERROR) tests/{file}::(\w+)", odd[1], re.MULTILINE)
    return sorted(f"{outcome} {name}" for outcome, name in found)


def test_content_that_differs_between_workers_makes_no_other_tests(odd: tuple[Path, str]) -> None:
    assert told_of(odd, "test_content.py") == 3 * ["PASSED test_it"]


def test_crowds_of_processes_come_one_after_the_other(odd: tuple[Path, str]) -> None:
    tree, told = odd
    workers = dict(re.findall(rf"^{re.escape(str(tree))}/(\S+) (gw\d)$", told, re.MULTILINE))
    assert workers.keys() == {*CROWDS, *OTHERS}, told
    assert len({workers[path] for path in CROWDS}) == 1
    assert len({*workers.values()}) == 2


def test_in_a_fresh_tree_one_worker_collects_before_the_others(odd: tuple[Path, str]) -> None:
    """What it compiles they read. The file that notes it comes before tests/integration, whose cache is looked for."""
    words = (odd[0] / "notes").read_text().split()
    assert (words[::2], words[1] == words[3] != words[5] == words[7]) == (["begins", "ends"] * 2, True), words


def test_a_blocked_event_loop_fails_its_test_and_no_other(odd: tuple[Path, str]) -> None:
    ours = ["ERROR test_it", "PASSED test_after", "PASSED test_before", "PASSED test_it"]
    assert told_of(odd, "test_loops.py") == ours
    assert "an event loop was blocked, by:" in odd[1] and "in sleep" in odd[1]


def test_text_that_utf_8_cannot_hold_ends_no_run(odd: tuple[Path, str]) -> None:
    assert told_of(odd, "test_text.py") == ["ERROR test_fixture", "FAILED test_error", "PASSED test_log"]
    for text in ("log \\udcff", "ValueError: error \\udcfc", "skip \\udcfb", "fixture \\udcfa"):
        assert text in odd[1]


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
def test_what_is_left_behind_fails_ci_whatever_passes_alone(tmp_path: Path, workers: list[str]) -> None:
    leaves = "def test_leaves(): __import__('os').posix_spawnp('sleep', ['sleep', '2'], {'PATH': '/bin:/usr/bin'})\n"
    made = ci(tmp_path, TEST + leaves)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "outcomes").write_text("fails passes")
    done = run(tmp_path, str(made), *workers)
    assert done.returncode == 10, done.stdout + done.stderr
    assert "a process is left: ['sleep', '2']" in done.stdout
    assert "FLAKY" not in done.stdout


def closing_lines(output: str) -> list[str]:
    """`2 passed in 0.01s` and its like, one of each run."""
    return [line for line in output.splitlines() if re.fullmatch(r"(no tests ran|\d+ \w+.*) in [\d.]+s", line)]


def ci(folder: Path, test: str) -> Path:
    """A tree with that test, CI's script and a `scripts/test`; the path of the former."""
    for name in (".ci", "scripts", "tests"):
        (folder / name).mkdir()
    (folder / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    (folder / "tests" / "test_one.py").write_text(test)
    script = folder / "scripts" / "test"
    script.write_text(SCRIPT.format(python=sys.executable))
    script.chmod(0o755)
    return Path(shutil.copy(ROOT / ".ci" / "tests", folder / ".ci" / "tests"))
