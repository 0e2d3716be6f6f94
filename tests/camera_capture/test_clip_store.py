"""Clips on the disk: the oldest go, by bytes and by days, and nothing that is no clip."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from camera_capture.clip_store import ClipStore
from edgeml.errors import RefusedError, SourceError


def clip(folder: Path, days: float, size: int = 100) -> str:
    """One of so many days ago."""
    name = f"{datetime.fromtimestamp(time.time() - days * 86400, UTC):%Y%m%dT%H%M%S}.000Z-2000~{days}.mp4"
    path = folder / name.replace("0.5", "5")
    path.write_bytes(bytes(size))
    return path.name


@pytest.mark.parametrize(
    ("keep_bytes", "keep_days", "left"),
    [(0, 30, 0), (99, 30, 0), (100, 30, 1), (399, 30, 3), (400, 30, 4), (1000, 2.5, 3), (1000, 0.1, 0), (200, 1.5, 2)],
)
def test_the_oldest_go(tmp_path: Path, keep_bytes: int, keep_days: float, left: int) -> None:
    names = [clip(tmp_path, days) for days in (3, 2, 1, 0.5)]
    others = {"a.mp4", "20260101T000000.000Z-x.txt", "20260101T000000.000Z-x.mp4.part"}
    for other in others:
        (tmp_path / other).touch()
    ClipStore(tmp_path, keep_bytes, keep_days).prune()
    assert {path.name for path in tmp_path.iterdir()} - others == set(names[len(names) - left :])


def test_the_newest_stays_and_is_whole(tmp_path: Path) -> None:
    store = ClipStore(tmp_path / "clips", 150, 30)
    paths = []
    for number in range(3):
        part = store.begin(f"2026/11/{number}.mp4", 1)
        part.write_bytes(bytes(100 + 100 * number))
        paths.append(store.keep(part))
    assert [path.exists() for path in paths] == [False, False, True]  # though it alone is too large
    assert [path.name for path in (tmp_path / "clips").iterdir()] == [paths[-1].name]
    assert paths[-1].name.endswith("Z-2026~11~2.mp4")
    assert (tmp_path / "clips").stat().st_mode & 0o077 == paths[-1].stat().st_mode & 0o077 == 0


def test_what_has_no_room_is_refused(tmp_path: Path) -> None:
    store = ClipStore(tmp_path, 10, 30)
    with pytest.raises(SourceError, match="has no room for"):
        store.begin("a.mp4", 2**60)
    with pytest.raises(RefusedError, match="at most 225 bytes"):
        store.begin("a" * 250 + ".mp4", 1)
    assert list(tmp_path.iterdir()) == []
    store.prune()
    ClipStore(tmp_path / "none", 10, 30).prune()
