"""The size that is told of a picture before it is decoded is the size that it is decoded to."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml import _picture_header
from pictures_support import WHOLE


@pytest.mark.parametrize("name", WHOLE)
def test_the_size_of_a_whole_picture(name: str) -> None:
    expected = cv2.imdecode(np.frombuffer(WHOLE[name], np.uint8), cv2.IMREAD_COLOR)
    header = _picture_header.read(WHOLE[name])
    assert expected is not None
    assert header is not None
    assert (header.height, header.width) == expected.shape[:2]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([*WHOLE.values()]),
    st.integers(0, 700),
    st.one_of(
        st.sampled_from([b"\xff", b"\xff\x01", b"\xff\xd3", b"\0", b"\xff\xc0\x00\x0b\x08\x10\x00\x10\x00", b"IHDR"]),
        st.binary(max_size=4),
    ),
    st.integers(0, 4),
)
def test_the_size_told_is_the_size_decoded(data: bytes, at: int, put: bytes, removed: int) -> None:
    """Whatever is done to a header: nothing is decoded that is larger than was told."""
    changed = data[:at] + put + data[at + removed :]
    try:
        header = _picture_header.read(changed)
    except _picture_header.HeaderError:
        return
    if header is None or header.width * header.height > 10**6:
        return
    image = cv2.imdecode(np.frombuffer(changed, np.uint8), cv2.IMREAD_COLOR)
    if image is not None:
        assert math.prod(image.shape[:2]) <= header.width * header.height
