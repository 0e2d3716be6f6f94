"""The header of a frame ring: the sizes that it may tell, and those that only somebody hostile would."""

from pathlib import Path
from typing import Any

import pytest

from edgeml._ring_header import HEADER, Layout, Origin, pack, parse
from edgeml.errors import FrameError
from edgeml.frames import FrameReader
from frame_support import small, spent

WIDEST, MOST = 16384, 64


@pytest.mark.parametrize(
    "sizes",
    [
        {"width": 1},
        {"width": 2},
        {"width": WIDEST - 1},
        {"width": WIDEST},
        {"height": 1},
        {"height": WIDEST},
        {"slots": 2},
        {"slots": 3},
        {"slots": MOST - 1},
        {"slots": MOST},
        {"pixel_format": "rgb24"},
        {"pixel_format": "gray8"},
    ],
    ids=str,
)
def test_a_header_tells_every_size_that_a_ring_may_have(sizes: dict[str, Any]) -> None:
    layout = Layout(**{"width": 8, "height": 4, "pixel_format": "bgr24", "slots": 4, **sizes})
    origin = Origin(pid=7, started=8, stream=2**64 - 1, base=9)
    header = pack(layout, origin)
    assert len(header) == HEADER.size
    assert parse(Path("x"), header, layout.file_bytes) == (layout, origin)
    for wrong in (0, layout.file_bytes - 1, layout.file_bytes + 1):
        with pytest.raises(FrameError, match="corrupt or truncated"):
            parse(Path("x"), header, wrong)


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        ({"width": -1}, "-1x4"),
        ({"width": 0}, "0x4"),
        ({"width": WIDEST + 1}, "16385x4"),
        ({"height": 0}, "8x0"),
        ({"height": WIDEST + 1}, "8x16385"),
        ({"slots": 0}, "0 slots: must be 2 to 64"),
        ({"slots": 1}, "1 slots: must be 2 to 64"),
        ({"slots": MOST + 1}, "65 slots: must be 2 to 64"),
        ({"pixel_format": ""}, "known are bgr24, rgb24, gray8"),
        ({"pixel_format": "jpeg"}, "known are bgr24, rgb24, gray8"),
    ],
    ids=str,
)
def test_an_impossible_ring_is_refused(tmp_path: Path, sizes: dict[str, Any], problem: str) -> None:
    with pytest.raises(FrameError, match=problem):
        small(tmp_path, **sizes)
    assert list(tmp_path.iterdir()) == []


def test_a_ring_full_of_holes_costs_a_reader_no_memory(tmp_path: Path) -> None:
    """A header may claim 50 GB where there are no pages: they are not made by looking at it."""
    layout, origin = Layout(16384, 16384, "bgr24", 64), Origin.here(1, 0)
    path = tmp_path / "edgeml-cam"
    with path.open("wb") as file:
        path.chmod(0o600)
        file.write(pack(layout, origin))
        file.truncate(layout.file_bytes)
    before = path.stat().st_blocks
    with FrameReader("cam", directory=tmp_path) as reader:
        assert spent(lambda: reader.read(0)) < 1
    assert path.stat().st_blocks - before < 1000
