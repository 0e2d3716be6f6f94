"""A camera that hangs up after each picture: it is opened again and again, and nothing of it stays."""

from pathlib import Path

import psutil
import pytest

from hostile_http import raw_server, sends
from http_camera_support import PICTURES, body, multipart
from support import Standalone, eventually

SETTLED = 5  # reconnects after which all is there that is kept
GROWTH_BYTES = 8 << 20


@pytest.mark.parametrize("times", [20, pytest.param(500, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
def test_many_reconnects_leave_no_descriptor_thread_or_memory(tmp_path: Path, times: int) -> None:
    with raw_server(sends(multipart("x", body(PICTURES[:1])))) as server:
        camera = {"type": "http", "location": f"{server.url}/v", "reconnect_min_s": 0.01, "reconnect_max_s": 0.02}
        config = {"ring_directory": str(tmp_path), "cameras": {"c": {**camera, "motion": {}}}}
        with Standalone("camera_capture", config, tmp_path / "w") as running:
            process = psutil.Process(running.process.pid)

            def held() -> tuple[int, int, int]:
                """(descriptors, threads, bytes); the least of a few looks."""
                looks = [(process.num_fds(), process.num_threads(), process.memory_info().rss) for _ in range(20)]
                return min(one[0] for one in looks), min(one[1] for one in looks), looks[-1][2]

            eventually(lambda: server.connections >= SETTLED, 300, "reconnects")
            first = held()
            eventually(lambda: server.connections >= SETTLED + times, 300, "reconnects")
            # It goes on to reconnect, which holds some for a while; what leaks is never given back.
            few = (first[0] + 1, first[1] + 1)
            eventually(lambda: all(now <= most for now, most in zip(held(), few, strict=False)), 10, f"at most {few}")
            last = held()
            assert running.stop() == 0
    assert last[2] <= first[2] + GROWTH_BYTES
