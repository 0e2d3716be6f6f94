"""What is hidden in a picture cannot be had back from it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.messages import Hidden, Method, Region
from edgeml.privacy import MAX_REGIONS, around, few, hide

METHODS: list[Method] = ["blur", "pixelate", "box"]
numbers = st.integers(-60, 160)
regions = st.lists(st.tuples(numbers, numbers, st.integers(0, 200), st.integers(0, 200)), max_size=4)


def noise(height: int = 96, width: int = 128, channels: int = 3) -> Any:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def inside(shape: tuple[int, ...], where: list[Region]) -> Any:
    found = np.zeros(shape[:2], bool)
    for x, y, w, h in where:
        found[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)] = True
    return found


@settings(max_examples=100, deadline=None)
@given(regions, st.sampled_from(METHODS), st.sampled_from([1, 3]))
def test_what_lies_outside_stays_as_it_is(where: list[Region], method: Method, channels: int) -> None:
    image = noise(channels=channels)
    before = image.copy()
    hide(image, Hidden(method, tuple(where)))
    outside = ~inside(image.shape, where)
    assert np.array_equal(image[outside], before[outside])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("side", [5, 24, 90])
def test_pictures_of_the_same_few_colours_are_the_same_afterwards(method: Method, side: int) -> None:
    """So nothing tells which one it was: all that is left are the means of at most 3 x 3 cells."""
    region = (3, 4, side, side)
    cells = max(1, min(3, side // 8))
    one, other = noise(), noise()
    for row in np.array_split(np.arange(4, 4 + side), cells):
        for column in np.array_split(np.arange(3, 3 + side), cells):
            block = other[np.ix_(row, column)].reshape(-1, 3)
            np.random.default_rng(1).shuffle(block)
            other[np.ix_(row, column)] = block.reshape(len(row), len(column), 3)
    assert (one != other).any()
    hide(one, Hidden(method, (region,)))
    hide(other, Hidden(method, (region,)))
    assert np.abs(one.astype(int) - other).max() <= 1
    if method == "pixelate":
        colours = {tuple(colour) for colour in one[4 : 4 + side, 3 : 3 + side].reshape(-1, 3).tolist()}
        assert len(colours) <= cells**2


@pytest.mark.parametrize("method", METHODS)
def test_a_crop_hides_what_the_picture_hides(method: Method) -> None:
    image, crop = noise(), noise()[20:80, 30:110].copy()
    hidden = Hidden(method, ((40, 30, 40, 30), (0, 0, 35, 25), (100, 70, 30, 30)))
    hide(image, hidden)
    hide(crop, hidden, origin=(30, 20))
    whole = slice(10, 40), slice(10, 50)  # the region that lies all within the crop
    assert np.array_equal(crop[whole], image[20:80, 30:110][whole])
    assert (crop[:5, :5] != noise()[20:25, 30:35]).any()


def test_a_region_holds_its_box_with_the_margin_and_ends_at_the_border() -> None:
    assert around((10.2, 20.7, 10, 20), 0.2, (100, 100)) == (8, 16, 15, 29)
    assert around((-5, 90, 20, 20), 0.0, (100, 100)) == (0, 90, 15, 10)
    assert around((200, 200, 10, 10), 0.0, (100, 100)) == (100, 100, 0, 0)
    assert around((30, 60, -20, -30), 0.5, (100, 100)) == (0, 15, 40, 60)  # corners the other way


@pytest.mark.parametrize("count", [0, 1, MAX_REGIONS, MAX_REGIONS + 1, 1000])
def test_many_regions_become_few_that_hide_no_less(count: int) -> None:
    random = np.random.default_rng(count)
    where = [(int(x), int(y), 5, 5) for x, y in random.integers(0, 90, (count, 2))]
    found = few(where)
    assert len(found) == min(count, MAX_REGIONS)
    shape = (96, 96)
    assert not (inside(shape, where) & ~inside(shape, list(found))).any()
