"""What a camera of 720p costs: CPU a frame, memory, and whether the rate is kept, for one and for four of them."""

from benchmarks.capture_rig import rows
from benchmarks.harness import Row


def run() -> list[Row]:
    return rows("capture_720p", 1280, 720, 5)
