"""Programs that misbehave, each as a real process."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeml import pace
from edgeml.child import LINE_BYTES, LINES, Child, LastWords, Program, signal_name
from edgeml.errors import ChildError
from edgeml.pace import Ration
from support import eventually, runs

SOON = ((signal.SIGTERM, 0.05),)
ONE_MORE = "sleep 1000 & echo $!"


@pytest.fixture
def start() -> Callable[..., Child]:
    def started(script: str, stop: tuple[tuple[int, float], ...] = SOON, **more: object) -> Child:
        return Child(Program(("/bin/sh", "-c", script), stop=stop, **more))  # type: ignore[arg-type]

    return started


@pytest.mark.parametrize(
    ("script", "stop", "code"),
    [
        pytest.param(f"{ONE_MORE}; wait", SOON, -signal.SIGTERM, id="obeys"),
        pytest.param(f"{ONE_MORE}; wait", (), -signal.SIGKILL, id="killed at once"),
        pytest.param(f"trap '' TERM; {ONE_MORE}; wait; wait", SOON, -signal.SIGKILL, id="ignores SIGTERM"),
        pytest.param(f"trap 'exit 7' TERM; {ONE_MORE}; wait", ((signal.SIGTERM, 5.0),), 7, id="tidies up"),
        pytest.param(
            f"trap 'exit 8' INT; {ONE_MORE}; wait", ((0, 0.05), (signal.SIGINT, 5.0), (signal.SIGTERM, 5.0)), 8,
            id="by another signal, after a moment to end by itself",
        ),
        pytest.param(f"({ONE_MORE}; wait) & {ONE_MORE}; wait", SOON, -signal.SIGTERM, id="has grandchildren"),
        pytest.param(f"(trap '' TERM; {ONE_MORE}; wait) & wait", SOON, -signal.SIGTERM, id="they ignore SIGTERM"),
        pytest.param(f"{ONE_MORE}; exit 3", SOON, 3, id="went, and they stay"),
        pytest.param("echo $$; exit 0", SOON, 0, id="went alone"),
        pytest.param("echo $$; kill -40 $$", SOON, -40, id="went by a signal without a name"),
    ],
)  # fmt: skip
def test_it_ends_with_all_that_it_started(
    start: Callable[..., Child], script: str, stop: tuple[tuple[int, float], ...], code: int
) -> None:
    made = start(script, stop)
    words = LastWords(made.stdout, "words")
    eventually(lambda: words.lines, what="a word of it")
    if code in {3, 0, -40}:
        eventually(lambda: made.exit_code() is not None)
        assert made.exit_code() == code
    pids = [made.pid, *map(int, words.lines)]
    for _ in range(2):
        made.stop()
        assert made.exit_code() == code
    eventually(lambda: not any(runs(pid) for pid in pids), what="the end of its group")
    made.signal(signal.SIGKILL)  # nobody's number any more: nothing happens
    words.close()
    assert made.stdout.closed


@pytest.mark.parametrize(
    "flood",
    ["yes flood", f"yes {'x' * 3 * LINE_BYTES}", "cat /dev/zero", "yes ''"],
    ids=["lines", "long lines", "no line at all", "empty lines"],
)
def test_a_flood_is_taken_and_not_kept(start: Callable[..., Child], tmp_path: Path, flood: str) -> None:
    heard: list[str] = []
    endless = f"({flood} | head -c 1000000; : > {tmp_path}/begun; exec {flood})"
    made = start(f"trap 'echo; echo bye; exit 0' TERM; {endless}; :", ((signal.SIGTERM, 5.0),))
    words = LastWords(made.stdout, "words", heard.append)
    eventually((tmp_path / "begun").exists, what="a megabyte of it")
    made.stop()
    words.wait(5)
    assert max(len(line) for line in heard) <= LINE_BYTES
    assert len(words.lines) <= LINES
    assert words.lines[-1] == "bye"
    words.close()


def test_what_dies_at_once_again_and_again_is_started_so_often_and_no_more(
    start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(at=100.0)
    starts = Ration(3, 60.0)

    def tried() -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: clock.at))
            try:
                made = start("exit 1", starts=starts)
            except ChildError as error:
                assert str(error) == "it was started 3 times within 60 s"
                return False
        made.stop()
        made.stdout.close()
        return True

    tries = [(0, True), (1, True), (2, True), (3, False), (59.9, False), (60, True), (60, False), (61, True),
             (62, True), (62, False), (500, True)]  # fmt: skip
    for at, goes in tries:
        clock.at = 100.0 + at
        assert tried() == goes, at


@pytest.mark.parametrize(
    ("words", "reason"),
    [(["/nowhere/x"], "No such file"), (["./text"], "Permission denied"), (["/bin/sh", "a\0b"], "null byte"),
     (["/"], "Permission denied")],
    ids=["nothing", "no program", "no text", "a folder"],
)  # fmt: skip
def test_what_cannot_be_started_says_why_and_nothing_of_its_arguments(
    words: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("no program")
    with pytest.raises(ChildError, match=reason) as caught:
        Child(Program([*words, "s3cret"]))
    assert "s3cret" not in str(caught.value)
    assert caught.value.code == "child_failed"


def test_its_environment_is_ours_and_its_own(start: Callable[..., Child], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    made = start("echo $OURS$OWN", environment={"OWN": "2"})
    words = LastWords(made.stdout, "words")
    words.wait(5)
    assert list(words.lines) == ["12"]
    made.stop()
    words.close()


def test_names_of_signals() -> None:
    assert [signal_name(number) for number in (9, 11, 40)] == ["SIGKILL", "SIGSEGV", "signal 40"]


def test_a_program_that_closes_its_output_and_lives_is_no_end(start: Callable[..., Child], tmp_path: Path) -> None:
    made = start(f"exec >&- 2>&-; : > {tmp_path}/closed; exec sleep 1000")
    words = LastWords(made.stdout, "words")
    words.wait(5)
    assert made.exit_code(0.02) is None
    made.stop()
    words.close()
