"""What the runner's client adds to an .eim model's own time for one inference.

Client and limit talk to two copies of the same stand-in model, in turns. The limit is a bare socket loop that sends the
same request, written once, and reads up to the NUL byte: no features are copied, nothing is parsed.
"""

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.harness import Row, interleave, percentile
from edge_impulse_runner.eim import Eim
from localdev.simulators.eim import Options, write_launcher

SIDES = (96, 320)
CALLS = 300
BAR_MS = 0.5
TIMEOUT_S = 10.0


def run() -> list[Row]:
    return [row for side in SIDES for row in _rows(side)]


def _rows(side: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        launcher = write_launcher(Path(folder) / "model.eim", Options(kind="box", width=side, height=side))
        with Eim(launcher) as model, _bare(launcher, Path(folder) / "s") as bare:
            features = np.arange(side * side, dtype=np.float32)
            request = b'{"classify_shm":{"elements":%d},"id":7}' % features.size
            figures = interleave(
                {
                    "client": lambda: _median_ms(lambda: model.classify(features)),
                    "bare": lambda: _median_ms(lambda: _ask(bare, request)),
                }
            )
            shared = model.uses_shared_memory
    added = figures["client"] - figures["bare"]
    size = f"{side}x{side}"
    return [
        Row(
            bench="eim_classify",
            metric=f"{size}, p50",
            unit="ms",
            value=figures["client"],
            limit=figures["bare"],
            ratio=figures["client"] / figures["bare"],
            bar=f"added {added:.3f} <= {BAR_MS} ms",
            ok=added <= BAR_MS,
        ),
        Row(
            bench="eim_classify",
            metric=f"{size}, shared memory used",
            unit="",
            value=float(shared),
            limit=None,
            ratio=None,
            bar="when offered",
            ok=shared,
        ),
    ]


def _median_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return percentile(times, 50)


@contextmanager
def _bare(launcher: Path, address: Path) -> Iterator[socket.socket]:
    process = subprocess.Popen([launcher, address], stdout=subprocess.DEVNULL)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT_S)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while connection.connect_ex(str(address)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the stand-in does not listen on {address}")
            time.sleep(0.01)
        _ask(connection, b'{"hello":1,"id":1}')
        yield connection
    finally:
        connection.close()
        try:
            process.wait(TIMEOUT_S)
        finally:
            process.kill()
            process.wait()


def _ask(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    while not connection.recv(1 << 16).endswith(b"\0"):
        pass
