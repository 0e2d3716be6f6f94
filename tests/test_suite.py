"""The suite's own machinery: what CI makes of failures, and reports that workers can send."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

# As scripts/test, on the tests of a folder, where each run of `test_it` takes the next word of `outcomes`.
SCRIPT = """#!/bin/sh
cd "$(dirname "$0")/.." && exec {python} -m pytest -q -p xdist "$@"
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


def test_content_that_differs_between_workers_makes_no_other_tests(tmp_path: Path) -> None:
    with_our_conftest(
        tmp_path,
        "import os, pytest\n"
        "@pytest.mark.parametrize('content', [b'x', os.urandom(9), 'a' * 80 + str(os.getpid())])\n"
        "def test_it(content): pass\n",
    )
    done = run(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", "2")
    assert done.stdout.splitlines()[-1].startswith("3 passed in"), done.stdout


def test_crowds_of_processes_come_one_after_the_other(tmp_path: Path) -> None:
    crowds = ["tests/integration/test_upgrade.py", "tests/localdev/demo/test_demo.py"]
    for path in (*crowds, "tests/cloud/test_events.py", "tests/integration/test_ipc.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("def test_it(worker_id): print(__file__, worker_id)\n")
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = ["-m", "pytest", "-p", "xdist", "-n", "2", "--dist=loadfile", "-rP"]
    done = run(tmp_path, sys.executable, *command)
    assert done.stdout.splitlines()[-1].strip("= ").startswith("4 passed in"), done.stdout
    workers = dict(re.findall(rf"^{re.escape(str(tmp_path))}/(\S+) (gw\d)$", done.stdout, re.MULTILINE))
    assert len(workers) == 4, done.stdout
    assert len({workers[path] for path in crowds}) == 1
    assert len({*workers.values()}) == 2


def test_in_a_fresh_tree_one_worker_collects_before_the_others(tmp_path: Path) -> None:
    """What it compiles they read."""
    with_our_conftest(
        tmp_path,
        "import os, time\n"
        "def note(text):\n"
        "    with open('notes', 'a') as file: print(text, os.getpid(), file=file)\n"
        "note('begins'); time.sleep(0.3); note('ends')\n"
        "def test_it(): pass\n",
    )
    done = run(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", "2")
    assert done.returncode == 0, done.stdout
    words = (tmp_path / "notes").read_text().split()
    assert (words[::2], words[1] == words[3] != words[5] == words[7]) == (["begins", "ends"] * 2, True), words


def test_a_blocked_event_loop_fails_its_test_and_no_other(tmp_path: Path) -> None:
    with_our_conftest(
        tmp_path,
        "import asyncio, time\n"
        "async def sleep(): time.sleep(0.01)\n"
        "def test_before(): time.sleep(0)\n"
        "def test_it(): asyncio.run(sleep())\n"
        "def test_after(): time.sleep(0.01)\n",
    )
    done = run(tmp_path, sys.executable, "-m", "pytest", "-q")
    assert done.stdout.splitlines()[-1].startswith("3 passed, 1 error in"), done.stdout
    assert "an event loop was blocked, by:" in done.stdout and "in sleep" in done.stdout


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


def with_our_conftest(folder: Path, test: str) -> None:
    """A folder with that test, and what this suite does to any."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_odd.py").write_text(test)


def test_text_that_utf_8_cannot_hold_ends_no_run(tmp_path: Path) -> None:
    with_our_conftest(
        tmp_path,
        "import logging, pytest\n"
        "def test_log(record_property):\n"
        "    logging.getLogger().warning('log \\udcff'); print('out \\udcfe'); record_property('a', '\\udcfd')\n"
        "def test_error(): raise ValueError('error \\udcfc')\n"
        "def test_skip(): pytest.skip('skip \\udcfb')\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError('fixture \\udcfa')\n"
        "def test_fixture(broken): pass\n",
    )
    done = run(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", "1", "-rA")
    assert done.stdout.splitlines()[-1].startswith("1 failed, 1 passed, 1 skipped, 1 error in"), done.stdout
    for told in ("log \\udcff", "ValueError: error \\udcfc", "skip \\udcfb", "fixture \\udcfa"):
        assert told in done.stdout
