"""A component outside Greengrass: its file of configuration, its lines on stdin, and its folder."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from component_support import echo
from edgeml.errors import IpcError
from edgeml.ipc import StandaloneIpc
from edgeml.messages import MAX_IPC_BYTES
from forked import popen


def test_a_missing_configuration_file_is_named(package: Path) -> None:
    running = echo(package)
    running.config_file.unlink()
    with running:
        assert running.ended() == 78
    assert "config.json: No such file or directory" in running.log


@pytest.mark.parametrize("config", [{"word": "\ud800"}, {"\ud800": 1, "parts": 1.5}, {"parts": "1_0"}], ids=ascii)
def test_a_configuration_that_cannot_be_used_exits_with_78(package: Path, config: dict[str, Any]) -> None:
    with echo(package, **config) as running:
        assert running.ended() == 78
    assert "ERROR edgeml.component configuration" in running.log


def test_a_changed_file_reconfigures_and_unknown_keys_are_told(package: Path) -> None:
    with echo(package, wrod="x") as running:
        running.logged("WARNING edgeml.problems problem: wrod is not known, did you mean word?")
        running.configure({"word": "bye"})
        assert running.message("changed") == "bye"
        running.logged("problem is over code=unknown_key subject=wrod")


def test_a_change_is_seen_though_the_file_has_the_time_of_the_one_before(package: Path) -> None:
    with echo(package) as running:
        running.logged("started")
        times = running.config_file.stat()
        running.config_file.write_text('{"word": "bye"}')
        os.utime(running.config_file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert running.message("changed") == "bye"


def test_many_unknown_keys_leave_room_for_other_problems(package: Path) -> None:
    with echo(package, **{f"old_{number}": 1 for number in range(40)}) as running:
        running.logged("started")
        assert running.stop() == 0
    problems = running.message("edgeml/health/Echo")["problems"]
    assert [problem["subject"] for problem in problems] == ["old_0", "old_1", "old_2", "old_3", "configuration"]
    assert "36 more keys are not known: old_4, old_5" in problems[-1]["text"]


def test_broken_lines_on_stdin_are_reported_and_passed_over(package: Path) -> None:
    with echo(package) as running:
        assert running.process.stdin is not None
        running.process.stdin.write('not json\n{"topic": 1}\n')
        running.send("say/it", 1)
        assert running.message("said") == 1
        running.logged("stdin line not understood")


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "Expecting property name"), ("[1]", "expected an object, found list")],
)
def test_a_broken_configuration_file_is_named(package: Path, text: str, words: str) -> None:
    with echo(package) as running:
        running.logged("started")
        running.config_file.write_text(text)
        running.logged(words)
        assert running.process.poll() is None  # what runs goes on
        running.process.send_signal(signal.SIGINT)
        assert running.ended() == 0


def test_a_line_on_stdin_is_for_a_local_topic_unless_it_says_otherwise(package: Path) -> None:
    with echo(package) as running:
        running.logged("started")
        assert running.process.stdin is not None
        nobody = [
            "",
            "{",
            "[]",
            "7",
            '{"topic": 7, "payload": 1}',
            '{"topic": "say/it"}',
            '{"topic": "other", "payload": 1}',
        ]
        nobody += ['{"topic": "say/it", "payload_base64": 5}', '{"topic": "say/it", "payload_base64": "\u00e4"}']
        nobody += ['{"channel": "iot", "topic": "say/it", "payload": 1}', "[" * 10_000]
        lines = "\n".join(nobody).encode() + b'\n\xff\n{"topic": "say/it", "payload": "here"}\n'
        os.write(running.process.stdin.fileno(), lines)
        assert running.message("said") == "here"
        assert [line["payload"] for line in running.lines if line["topic"] == "said"] == ["here"]
        assert "channel: expected local or iot_core, found 'iot'" in running.log
        assert "stdin line for nobody channel=local topic=other" in running.log


def test_a_run_by_hand_leaves_no_file_in_the_current_folder(tmp_path: Path) -> None:
    here, state, config = tmp_path / "here", tmp_path / "state", tmp_path / "config.json"
    here.mkdir()
    config.write_text(json.dumps({"ports": {}, "iot_core": {"enabled": True}}))
    environment = {**os.environ, "XDG_STATE_HOME": str(state)}
    command = [sys.executable, "-P", "-m", "serial_scraper", "--standalone", "--config", str(config)]

    def run_until_started() -> None:
        with popen(command, cwd=here, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert any(" started " in line for line in process.stderr)
            process.terminate()
            process.stderr.read()
        assert process.returncode == 0

    run_until_started()
    run_until_started()
    (folder,) = (state / "greengrass-edge-ml").iterdir()  # the second run goes on where the first one ended
    assert folder.name.startswith("edgeml.SerialScraper-")
    assert list(folder.iterdir())
    assert not list(here.iterdir())

    state.rename(tmp_path / "elsewhere")
    state.write_text("a file, where no folder can be")
    run_until_started()
    assert not list(here.iterdir())


def test_outside_greengrass_without_standalone_it_says_what_to_do(package: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("SVCUID",)}
    command = [sys.executable, str(package / "echo_component.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "not started by Greengrass? Use --standalone --config FILE" in done.stderr


@pytest.mark.parametrize(
    ("size", "fits"),
    [(0, True), (1, True), (MAX_IPC_BYTES - 1, True), (MAX_IPC_BYTES, True), (MAX_IPC_BYTES + 1, False)],
)
def test_a_local_message_is_as_small_as_every_core_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int, fits: bool
) -> None:
    ipc = StandaloneIpc(tmp_path / "config.json")
    try:
        with contextlib.nullcontext() if fits else pytest.raises(IpcError, match="7001 bytes, 7000 are allowed"):
            ipc.publish("t", b"x" * size)
        assert bool(capsys.readouterr().out) == fits
    finally:
        ipc.close()
