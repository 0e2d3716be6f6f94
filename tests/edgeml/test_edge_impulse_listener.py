"""The listener for commands: a topic's problem is over when it is heard, or no device has it any more."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeml.component import Context
from edgeml.edge_impulse import listener as module
from edgeml.edge_impulse.listener import CommandListener, Device
from edgeml.health import Health
from ipc_support import UNEXPECTED, FakeIpc
from support import eventually


@pytest.mark.parametrize("error", UNEXPECTED.values(), ids=UNEXPECTED)
@pytest.mark.parametrize("then", ["heard", "gone"])
def test_a_problem_of_a_topic_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str, error: Callable[[], Exception]
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    broken = {"old"}

    def crossed(call: str, topic: str) -> None:
        if topic in broken:
            raise error()

    ipc, health = FakeIpc(crossed), Health("a", "1")
    context = Context(ipc=ipc, health=health, work=tmp_path, root=tmp_path, thing_name="thing")
    listener, device = CommandListener(context), Device(tmp_path / "last", lambda payload: None)

    def problems() -> set[tuple[str, str]]:
        return {(problem.code, problem.subject) for problem in health.problems.current()}

    listener.listen({"old": device})
    eventually(lambda: problems() == {("worker_failed", "old")}, what="the problem")
    if then == "heard":
        broken.clear()
    else:
        listener.listen({"new": device})
    eventually(lambda: list(ipc.handlers) == ["old" if then == "heard" else "new"], what="the subscription")
    eventually(lambda: not problems(), what="its end")
    context.stopping.set()
