"""What a camera of 1080p costs: CPU a frame, memory, and whether the rate is kept, for one and for four of them."""

from benchmarks.capture_rig import rows
from benchmarks.harness import Row


def run() -> list[Row]:
    return rows("capture_1080p", 1920, 1080, 10)
