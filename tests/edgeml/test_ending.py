"""The end of a process by a signal, whichever thread has it and whatever the main one is doing."""

import subprocess
import sys
import time

import pytest

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


@pytest.mark.parametrize("way", ["thread", "process", "interrupt", "busy"])
def test_the_end_is_asked_for_at_once(way: str) -> None:
    """A handler in Python would wait for the main thread, which waits for an event here."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", MAIN, way], capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("asked after 0.")
    assert time.monotonic() - began < 10


def test_what_takes_too_long_is_ended() -> None:
    code = (
        "import os, signal, time\nfrom edgeml import ending\nending.STOP_TIMEOUT_S = 0.1\n"
        "ending.on_signals(lambda: None)\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(30)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "stop took longer than 0.1 s" in done.stderr
