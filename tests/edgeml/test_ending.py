"""The end of a process by a signal, whichever thread has it and whatever the main one is doing."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from forked import popen

MAIN = """
import os, queue, signal, sys, threading, time
from edgeml import ending

begun, way = time.monotonic(), sys.argv[1]
ending.on_signals(lambda: os.write(1, f"asked after {time.monotonic() - begun:.3f}".encode()) and os._exit(7))

def send():
    time.sleep(0.2)
    if way == "thread":
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGINT if way == "interrupt" else signal.SIGTERM)

threading.Thread(target=send, daemon=True).start()
if way == "busy":
    print(sum(number * number for number in range(10**9)))
queue.SimpleQueue().get(timeout=30)
"""


def run(program: str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a Python program."""
    command = [sys.executable, "-c", program, *arguments]
    with popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said, log = process.communicate(timeout=60)
    return process.returncode, said, log


@pytest.mark.parametrize("way", ["thread", "process", "interrupt", "busy"])
def test_the_end_is_asked_for_at_once(way: str) -> None:
    """A handler in Python would wait for the main thread, which waits for an event here."""
    began = time.monotonic()
    code, said, log = run(MAIN, way)
    assert code == 7, log
    assert said.startswith("asked after 0.")
    assert time.monotonic() - began < 10


def test_what_takes_too_long_is_ended() -> None:
    program = (
        "import os, signal, time\nfrom edgeml import ending\nending.STOP_TIMEOUT_S = 0.1\n"
        "ending.on_signals(lambda: None)\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(30)\n"
    )
    code, _, log = run(program)
    assert code == 1
    assert "stop took longer than 0.1 s" in log


LATE = """
import os, signal, sys
from edgeml import ending

class Late:  # its end is among the last things that Python does
    def __del__(self, kill=os.kill, pid=os.getpid(), number=getattr(signal, sys.argv[1])):
        kill(pid, number)

ending.at_last(lambda: 0)
ending.on_signals(lambda: None)
sys.late = Late()
print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_that_comes_late_changes_nothing(number: str) -> None:
    """A core tells the group of processes, and sudo the one that it started: one that has ended hears it twice."""
    assert run(LATE, number) == (0, "stopped\n", "")


WORKING = """
import sys, threading, msgspec, numpy, onnx
from onnx import TensorProto, helper
from edgeml.component import Component, run
from edgeml.onnx_session import runtime

class Config(msgspec.Struct):
    pass

class Busy(Component):
    name, version = "edgeml.Busy", "1.0.0"

    def start(self, config):
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        self.session = runtime().InferenceSession(model.SerializeToString())
        for number in range(4):
            if KIND == "worker":
                self.context.spawn(f"w{number}", self.work)
            else:
                threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while True:
            self.session.run(None, {"x": numpy.zeros((1, 64), numpy.float32)})

    def stop(self):
        pass

raise SystemExit(run(Busy, Config))
"""


@pytest.mark.parametrize("kind", ["worker", "thread"])
def test_threads_in_foreign_code_do_not_abort_the_process(kind: str, tmp_path: Path) -> None:
    """Python would end their threads by force, which C++ does not bear: SIGABRT, with or without an error of ours."""
    config = tmp_path / "config.json"
    config.write_text("{}")
    command = [
        sys.executable,
        "-c",
        f"KIND = {kind!r}\n{WORKING}",
        "--standalone",
        "--config",
        str(config),
        "--work",
        str(tmp_path),
    ]
    with popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = ""
        while "started" not in told and process.poll() is None:
            told += process.stderr.readline()
        process.terminate()
        rest = process.communicate(timeout=20)[1]
    assert process.returncode == 0, told + rest
    assert "stopped" in rest
