import logging
import threading
from collections.abc import Callable

import pytest

from edgeml._worker import Worker, Workers
from edgeml.errors import DisconnectedError
from edgeml.health import Health
from support import eventually


class Shared:
    def __init__(self, well_s: float = 60.0) -> None:
        self.health, self.stopping, self.ended = Health("a", "1"), threading.Event(), list[BaseException]()
        self.workers = Workers(self.health, self.stopping, self.ended.append, first_s=0.0, well_s=well_s)

    def spawn(self, work: Callable[[], None], *, name: str = "w", again: bool = True) -> Worker:
        worker = Worker(name, work, self.workers, again=again)
        worker.start()
        return worker

    def problems(self) -> list[str]:
        return [f"{p.code} {p.subject}: {p.text}" for p in self.health.problems.current()]


def steps(*errors: BaseException | None) -> Callable[[], None]:
    """Work that raises one of `errors` after the other; the first None is its good end."""
    left = list(errors)

    def work() -> None:
        if (error := left.pop(0)) is not None:
            raise error

    return work


def test_a_failure_is_told_and_tried_again_until_it_works(caplog: pytest.LogCaptureFixture) -> None:
    shared = Shared()
    with caplog.at_level(logging.INFO):
        thread = shared.spawn(steps(ValueError("a"), ValueError("a"), None))
        eventually(lambda: not thread.is_alive())
    assert shared.health.counter("workers.failed") == 2
    assert shared.problems() == []
    assert not shared.ended


def test_the_same_failure_shows_its_traceback_once_another_one_again(caplog: pytest.LogCaptureFixture) -> None:
    shared = Shared()
    thread = shared.spawn(steps(ValueError("a"), ValueError("b"), KeyError("c"), KeyError("d"), None))
    eventually(lambda: not thread.is_alive())
    told = [record for record in caplog.records if record.exc_info]
    assert [type(record.exc_info[1]).__name__ for record in told if record.exc_info] == ["ValueError", "KeyError"]


def test_a_failure_is_a_problem_until_it_ran_well() -> None:
    shared, goes_on, left = Shared(well_s=0.0), threading.Event(), [1]

    def work() -> None:
        if left:
            left.pop()
            raise OSError("the plug is out")
        goes_on.wait(10)

    thread = shared.spawn(work, name="port a")
    eventually(lambda: shared.problems() == ["worker_failed port a: OSError: the plug is out"])

    def well() -> bool:
        shared.workers.look()
        return not shared.problems()

    eventually(well)
    assert thread.is_alive()
    goes_on.set()
    thread.join(5)


def test_one_of_two_workers_of_a_name_does_not_take_the_others_problem_back() -> None:
    shared = Shared()

    def bad() -> None:
        raise ValueError("bad")

    thread = shared.spawn(bad)
    eventually(shared.problems)
    other = shared.spawn(steps(ValueError("x"), None))
    eventually(lambda: not other.is_alive())
    assert shared.problems()
    thread.join(5)
    assert not thread.is_alive()
    assert shared.problems() == []


@pytest.mark.parametrize("how", ["joined", "stopping"])
def test_a_worker_in_its_pause_ends_when_it_is_told_to(how: str) -> None:
    shared = Shared()
    shared.workers.first_s = 1e9

    def bad() -> None:
        raise ValueError("bad")

    thread = shared.spawn(bad)
    eventually(shared.problems)
    if how == "stopping":
        shared.stopping.set()
        eventually(lambda: not thread.is_alive())
    else:
        thread.join(5)
    assert not thread.is_alive()
    assert shared.health.counter("workers.failed") == 1


def test_what_answers_one_request_is_not_repeated() -> None:
    shared = Shared()
    thread = shared.spawn(steps(ValueError("a"), ValueError("b")), again=False)
    eventually(lambda: not thread.is_alive())
    assert shared.health.counter("workers.failed") == 1
    assert shared.problems() == []


@pytest.mark.parametrize("error", [DisconnectedError("gone"), SystemExit(3)], ids=["disconnected", "exit"])
def test_only_a_lost_connection_and_exits_end_the_process(error: BaseException) -> None:
    shared = Shared()
    thread = shared.spawn(steps(error))
    eventually(lambda: not thread.is_alive())
    assert shared.ended == [error]
    assert shared.health.counter("workers.failed") == 0
