"""Functions as processes: what happens when a handler hangs, dies or keeps failing."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localdev.cloud.aws import LocalAws
from localdev.cloud.lambdas import Function, FunctionError, Setting
from support import eventually

HANDLER = """
import os, sys, time
calls = 0
def handler(event, context):
    global calls
    calls += 1
    match event:
        case "die": os._exit(3)
        case "hang": time.sleep(60)
        case "raise": raise KeyError("x")
        case "noise": print('{"not": "the answer"}'); sys.stdout.flush(); return 1
        case "environment": return dict(os.environ)
        case "context":
            return [context.function_name, context.get_remaining_time_in_millis() > 0, context.aws_request_id]
        case "unserialisable": return object()
    return [calls, os.getpid()]
"""


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    with LocalAws() as running:
        yield running


@pytest.fixture
def make(aws: LocalAws, tmp_path: Path) -> Iterator[Callable[..., Function]]:
    made: list[Function] = []
    (tmp_path / "app.py").write_text(HANDLER)

    def function(timeout_s: float = 5.0, concurrency: int = 1) -> Function:
        setting = Setting("F", "arn:F", str(tmp_path), "app.handler", 128, timeout_s, {"MARK": "1"}, [], 2, "")
        made.append(Function(setting, aws, tmp_path / "log", concurrency, retry_delay_s=0.01))
        return made[-1]

    yield function
    for each in made:
        each.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_serves_many_invocations(make: Callable[..., Function]) -> None:
    function = make()
    (first, pid), (second, same) = function.invoke({}), function.invoke({})
    assert (first, second, pid) == (1, 2, same)
    function.stop()
    assert not alive(pid)


def test_the_environment_is_that_of_the_template_and_aws_only(
    make: Callable[..., Function], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAK", "1")
    environment = make().invoke("environment")
    assert environment["MARK"] == "1"
    assert environment["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert not {"LEAK", "HOME", "PYTHONPATH"} & set(environment)


def test_the_context_is_lambdas(make: Callable[..., Function]) -> None:
    name, has_time, request_id = make().invoke("context")
    assert (name, has_time, len(request_id)) == ("F", True, 36)


@pytest.mark.parametrize(
    ("event", "kind"),
    [("raise", "KeyError: 'x'"), ("die", "Runtime.ExitError"), ("unserialisable", "Runtime.MarshalError")],
)
def test_failures_are_told_and_the_next_invocation_works(make: Callable[..., Function], event: str, kind: str) -> None:
    function = make()
    with pytest.raises(FunctionError, match=kind):
        function.invoke(event)
    assert function.invoke({})[0] in (1, 2)


def test_a_handler_that_hangs_is_ended_at_its_timeout(make: Callable[..., Function]) -> None:
    function = make(timeout_s=3.0)  # a start counts, too
    pid = function.invoke({})[1]
    with pytest.raises(FunctionError, match=r"Task timed out after 3\.00 seconds"):
        function.invoke("hang")
    assert not alive(pid)
    assert function.invoke({})[0] == 1


def test_what_a_handler_prints_is_not_its_answer(make: Callable[..., Function]) -> None:
    function = make()
    assert function.invoke("noise") == 1
    eventually(lambda: function.log_file.exists() and '{"not": "the answer"}' in function.log_file.read_text())


def test_events_are_shared_among_the_workers(make: Callable[..., Function]) -> None:
    function = make(concurrency=2)
    for _ in range(20):
        function.send({})
    eventually(lambda: not function.pending)


def test_stopping_ends_a_handler_that_hangs(make: Callable[..., Function]) -> None:
    function = make(timeout_s=60)
    pid = function.invoke({})[1]
    function.send("hang")
    function.stop()
    assert not alive(pid)
