"""Faces in pictures of 1920 x 1080."""

from benchmarks.detecting import rows
from benchmarks.harness import Row


def run() -> list[Row]:
    return rows("detect_1080p", 1920, 1080)
