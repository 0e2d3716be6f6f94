"""Faces in pictures of 1280 x 720."""

from benchmarks.detecting import rows
from benchmarks.harness import Row


def run() -> list[Row]:
    return rows("detect_720p", 1280, 720)
