"""scripts/core logs: what is shown, what filters pick, and a log that is followed."""

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from core_support import COMMAND, NAME, Run
from forked import popen
from localdev.core.log_filter import Filter
from localdev.core.logs import Logs, Record
from support import eventually


@pytest.mark.usefixtures("deployed")
def test_logs(run: Run, root: Path) -> None:
    log = root / "logs" / f"{NAME}.log"
    eventually(lambda: "stdout. started." in run("logs", "get", "-lf", str(log)), what="output")
    assert "service-set-state" in run("logs", "get")
    listed = run("logs", "list-log-files", "-ld", str(root / "logs"))
    assert str(log) in listed
    assert re.search(r"^Total \d+ files found\.$", listed, re.MULTILINE)


@pytest.mark.parametrize("log_format", ["TEXT", "JSON"])
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["level=WARN"], "bc"),
        (["level=INFO", "thread=main"], "ac"),
        (["serviceName=B,loggerName=c"], "bc"),
        (['text [ab]$|text [ab][."]'], "ab"),
        (["eventType=event"], "abc"),
        (["nothing"], ""),
    ],
)
def test_filters_of_logs(log_format: Any, words: list[str], shown: str, tmp_path: Path) -> None:
    logs = Logs(tmp_path, log_format)
    for name, level, thread in (("a", "INFO", "main"), ("b", "WARN", "Copier"), ("c", "ERROR", "main")):
        contexts = {"serviceName": name.upper()}
        logs.write("x", Record(level, thread, name, "event", f"text {name}", contexts))  # type: ignore[arg-type]
    logs.close()
    text = (tmp_path / "x.log").read_text()
    picked = Filter(words).pick(text)
    assert [letter for letter in "abc" if f"text {letter}" in picked] == list(shown)
    assert Filter(["text b"], before=1).pick(text).count("\n") == 2
    assert Filter(["text b"], after=1).pick(text).count("\n") == 2


@pytest.mark.parametrize("wrong", ["level=LOUD", "["])
def test_a_filter_that_is_none(run: Run, wrong: str) -> None:
    assert f"--filter {wrong}:" in run("logs", "get", "-f", wrong, code=1)


def test_following_a_log_goes_on_after_its_rotation(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("first\n")
    follower = popen([*COMMAND, "logs", "get", "-lf", str(log), "-fol"], stdout=subprocess.PIPE, text=True)
    try:
        assert follower.stdout
        assert follower.stdout.readline() == "first\n"
        with log.open("a") as file:
            file.write("second\n")
        log.rename(tmp_path / "rotated.log")
        log.write_text("after rotation\n")
        assert follower.stdout.readline() == "second\n"
        assert follower.stdout.readline() == "after rotation\n"
    finally:
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=10)
