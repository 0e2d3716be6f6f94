"""A fork begins, works and ends as a process that Python itself starts."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import forked
from forked import popen
from support import ROOT, runs

SHOW = """
import json, os, sys
files = sorted(map(int, os.listdir("/proc/self/fd")))[:-1]  # the last is that of the list
print(json.dumps([__name__, sys.argv, sys.path[0], os.getcwd(), dict(os.environ), files, os.getpgrp() == os.getpid()]))
print("an error", file=sys.stderr)
raise SystemExit(sys.stdin.read())
"""
ENDS = {
    "at its end": ("pass", 0),
    "with a code": ("raise SystemExit(7)", 7),
    "with words": ("raise SystemExit('so it ends')", 1),
    "by an error": ("1 / 0", 1),
    "at once": ("import os; os._exit(3)", 3),
    "by a signal": ("import os; os.kill(os.getpid(), 9)", -9),
    "by another thread": ("import os, threading; threading.Thread(target=os._exit, args=[4]).start()", 4),
    "at exit": ("import atexit, os; atexit.register(os._exit, 5)", 5),
}


def options(folder: Path) -> dict[str, Any]:
    files = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return {**files, "text": True, "cwd": folder, "env": {"LC_ALL": "C.UTF-8", "NAME": "välue"}}


@pytest.mark.parametrize("session", [False, True])
@pytest.mark.parametrize("way", ["code", "file", "module"])
def test_it_is_given_what_a_process_is_given(way: str, session: bool, tmp_path: Path) -> None:
    (tmp_path / "shown.py").write_text(SHOW)
    named = {"code": ["-c", SHOW], "file": [str(tmp_path / "shown.py")], "module": ["-m", "shown"]}[way]
    found = []
    for start in (popen, subprocess.Popen):
        with start([sys.executable, *named, "one", "--two"], start_new_session=session, **options(tmp_path)) as process:
            found.append((process.communicate("7", timeout=20), process.returncode))
    assert found[0] == found[1]


@pytest.mark.parametrize("end", ENDS)
def test_its_end_is_told(end: str) -> None:
    code, expected = ENDS[end]
    with popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        told = process.communicate(timeout=20)[1]
    assert process.returncode == expected
    assert process.poll() == expected
    assert not runs(process.pid)
    assert ("so it ends" in told, "ZeroDivisionError" in told) == (end == "with words", end == "by an error")


def test_it_is_waited_for_and_takes_signals() -> None:
    code = "import signal, sys; print('ready', flush=True); signal.pause()"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        with popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            process.send_signal(number)
            assert process.wait(20) == -number


def test_nothing_is_left_open() -> None:
    before = None
    for _ in range(3):
        files = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with popen([sys.executable, "-c", "pass"], **files) as process:
            assert process.wait(20) == 0
        now = len(list(Path("/proc/self/fd").iterdir()))
        assert before in (None, now)
        before = now


def test_a_pipe_ends_with_it_though_others_were_begun_meanwhile() -> None:
    wait = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    files = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with popen(wait, **files) as first, popen(wait, **files) as second:
        assert first.communicate(timeout=20) == (b"", None)  # the end of its stdin, and of its stdout
        assert first.returncode == 0
        assert second.poll() is None


def test_nothing_of_ours_is_imported_beforehand() -> None:
    code = "import sys; print(*(file for file in (getattr(m, '__file__', None) for m in sys.modules.values()) if file))"
    with popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        files = process.communicate(timeout=20)[0].split()
    ours = {file for file in files if Path(file).is_relative_to(ROOT) and ".venv" not in Path(file).parts}
    assert ours == {forked.__file__}


def test_an_isolated_one_finds_no_package_and_has_what_lambda_has() -> None:
    code = "import os, sys; print(sys.path, sys.flags, sorted(os.listdir('/proc/self/fd'))[:-1], end=' ')"
    code += "; print({name: name in sys.modules for name in ('boto3', 'msgspec')})"
    code += "; print(sys.modules.get('awscrt'), getattr(sys.modules.get('botocore.compat'), '__file__', ''))"
    found = []
    for start in (popen, subprocess.Popen):
        command = [sys.executable, *forked.ISOLATED, "-c", code]
        with start(command, stdout=subprocess.PIPE, text=True, env={"PATH": os.defpath}) as process:
            found.append(process.communicate(timeout=20)[0].splitlines())
    forks, plain = found
    assert forks == [plain[0].replace("'boto3': False", "'boto3': True"), f"None {forked.PACKAGES}/botocore/compat.py"]
