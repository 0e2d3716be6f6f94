"""`run` with a small component, as a process of its own, outside Greengrass."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from edgeml.component import HEALTH_INTERVAL_S
from edgeml.ipc import INBOX
from support import Standalone

COMPONENT = """
    import sys, threading, time
    from pathlib import Path
    import msgspec
    from edgeml.component import Component, run
    from edgeml.errors import DisconnectedError, SourceError

    class Config(msgspec.Struct):
        word: str = "hello"
        crash: str = ""
        foreign: str = ""
        stop_s: float = 0
        reconfigure_s: float = 0
        parts: int = 0

    class Echo(Component[Config]):
        name, version = "edgeml.Echo", "1.0.0"

        def start(self, config):
            self.config = config
            if config.crash == "start":
                raise SourceError("no such thing")
            for number in range(config.parts):
                self.context.health.count(f"a.counter.with.a.long.name.{number:04d}")
            if config.crash == "thread":
                self.context.spawn("worker", lambda: 1 / 0)
            if config.crash == "foreign thread":
                threading.Thread(target=lambda: 1 / 0, name="of a library", daemon=True).start()
            if config.crash == "disconnected":
                self.context.spawn("worker", self.lose)
            1 / (config.foreign != "start")
            self.context.ipc.subscribe("say/+", self.say)
            self.context.ipc.subscribe_iot("cloud/#", lambda _, data: self.context.ipc.publish_iot("back", data))

        def lose(self):
            raise DisconnectedError("the socket is gone")

        def say(self, topic, payload):
            if payload == b'"boom"':
                raise ValueError("bad message")
            if payload == b'"slow"':
                self.context.ipc.publish("slow", b"1")
                while not Path("go").exists():
                    time.sleep(0.02)
            self.context.ipc.publish("said", payload)

        def reconfigure(self, config):
            self.context.ipc.publish("changing", b"1")
            1 / (config.foreign != "reconfigure")
            time.sleep(config.reconfigure_s)
            self.config = config
            self.context.ipc.publish("changed", msgspec.json.encode(config.word))

        def stop(self):
            1 / (self.config.foreign != "stop")
            time.sleep(self.config.stop_s)
            self.context.ipc.publish("stopped", b"1")

    raise SystemExit(run(Echo, Config))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "echo_component.py").write_text(textwrap.dedent(COMPONENT))
    return tmp_path


def echo(package: Path, **config: Any) -> Standalone:
    return Standalone(package / "echo_component.py", config, package / "w")


def test_messages_come_in_order_on_both_channels(package: Path) -> None:
    with echo(package) as running:
        for number in range(200):
            running.send("say/it", number)
        running.message("said", count=200)
        assert [line["payload"] for line in running.lines if line["topic"] == "said"] == list(range(200))
        running.send("cloud/a/b", {"x": 1}, channel="iot_core")
        assert running.message("back") == {"x": 1}
        assert running.lines[-1]["channel"] == "iot_core"


def test_sigterm_stops_flushes_and_exits_with_zero(package: Path) -> None:
    with echo(package) as running:
        running.logged("started component=edgeml.Echo version=1.0.0")
        assert running.message("edgeml/health/Echo", timeout=HEALTH_INTERVAL_S - 2)["problems"] == []  # at once
        assert running.stop() == 0
    assert [line["topic"] for line in running.lines] == ["edgeml/health/Echo", "stopped", "edgeml/health/Echo"]


def test_a_stop_that_hangs_is_cut_short(package: Path) -> None:
    with echo(package, stop_s=60) as running:
        running.logged("started")
        assert running.stop(timeout=7) == 1
    assert "stop took longer than" in running.log


def test_sigterm_in_the_middle_of_a_change_is_answered_in_time(package: Path) -> None:
    with echo(package) as running:
        running.logged("started")
        replaced(running, {"reconfigure_s": 60})
        running.message("changing")
        assert running.stop(timeout=7) == 1


def test_a_start_that_fails_stops_what_had_begun(package: Path) -> None:
    with echo(package, crash="start") as running:
        assert running.ended() == 1
    assert [line["topic"] for line in running.lines] == ["stopped"]


def test_a_report_too_long_for_a_message_leaves_out_its_finer_points(package: Path) -> None:
    with echo(package, parts=300) as running:
        running.logged("started")
        assert running.stop() == 0
    report = running.lines[-1]["payload"]
    assert report["component"] == "edgeml.Echo"
    assert report["rates"] == {}


def test_messages_that_come_faster_than_they_are_handled_are_counted_in_health(package: Path) -> None:
    with echo(package) as running:
        running.send("say/it", "slow")
        running.message("slow")
        for number in range(INBOX + 500):
            running.send("say/it", number)
        running.logged("inbox full")
        (package / "w" / "go").touch()
        assert running.stop() == 0
        report = running.last("edgeml/health/Echo")
    assert 0 < report["gauges"]["messages.dropped"] <= 500


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


def test_a_handler_that_fails_does_not_end_the_others(package: Path) -> None:
    with echo(package) as running:
        running.send("say/it", "boom")
        running.send("say/it", "fine")
        assert running.message("said") == "fine"
        running.logged("handler failed topic=say/it")


def test_a_handler_that_fails_again_and_again_does_not_flood_the_log(package: Path) -> None:
    with echo(package) as running:
        for _ in range(100):
            running.send("say/it", "boom")
        running.send("say/it", "fine")
        assert running.message("said") == "fine"
        assert running.stop() == 0
    assert running.log.count("handler failed") == 7
    assert running.last("edgeml/health/Echo")["counters"]["messages.failed"] == 100


def test_a_thread_that_fails_leaves_the_others_at_work(package: Path) -> None:
    with echo(package, crash="thread") as running:
        running.logged("started")
        running.logged("ZeroDivisionError")
        running.send("say/it", 1)
        assert running.message("said") == 1
        assert running.stop() == 0
    report = running.last("edgeml/health/Echo")
    assert [(problem["code"], problem["subject"]) for problem in report["problems"]] == [("worker_failed", "worker")]


def test_a_thread_of_a_library_that_dies_is_told(package: Path) -> None:
    with echo(package, crash="foreign thread") as running:
        running.logged('ERROR edgeml.component thread died thread="of a library"')
        running.logged("started")
        assert running.stop() == 0
    (problem,) = running.message("edgeml/health/Echo")["problems"]
    assert problem["subject"] == "of a library"


def test_a_connection_lost_in_a_thread_ends_the_process(package: Path) -> None:
    with echo(package, crash="disconnected") as running:
        assert running.ended() == 1
    assert "ending: the socket is gone" in running.log


@pytest.mark.parametrize("where", ["start", "stop"])
def test_a_foreign_error_ends_in_words(package: Path, where: str) -> None:
    with echo(package, foreign=where) as running:
        if where == "stop":
            running.logged("started")
            running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 1
    assert f"ERROR edgeml.component {where} failed unexpectedly: ZeroDivisionError" in running.log


def test_a_foreign_error_in_a_change_keeps_what_runs(package: Path) -> None:
    with echo(package) as running:
        running.logged("started")
        replaced(running, {"foreign": "reconfigure"})
        running.logged("failed unexpectedly, going on: ZeroDivisionError")
        running.send("say/it", 1)
        assert running.message("said") == 1
        assert running.stop() == 0


def test_a_start_that_fails_says_why(package: Path) -> None:
    with echo(package, crash="start") as running:
        assert running.ended() == 1
    assert "ERROR edgeml.component no such thing" in running.log


def test_a_changed_file_reconfigures_and_unknown_keys_are_told(package: Path) -> None:
    with echo(package, wrod="x") as running:
        running.logged("WARNING edgeml.problems problem: wrod is not known, did you mean word?")
        replaced(running, {"word": "bye"})
        assert running.message("changed") == "bye"
        running.logged("problem is over code=unknown_key subject=wrod")


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
        with subprocess.Popen(command, cwd=here, env=environment, stderr=subprocess.PIPE, text=True) as process:
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


def replaced(running: Standalone, config: dict[str, Any]) -> None:
    """Change the configuration file as an editor does: in one step."""
    new = running.config_file.with_suffix(".new")
    new.write_text(json.dumps(config))
    new.rename(running.config_file)
