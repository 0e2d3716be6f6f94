"""Numbers in messages, as other programs write them."""

from typing import Any

import pytest

from edgeml.errors import BackendError
from inferencer.payloads import numbers


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        (b"1,2.5,-3e2\n", ["1", "2.5", "-3e2"]),
        (b" [1, 2.5]", [1, 2.5]),
        (b"7", ["7"]),
        (b'{"a": 1, "b": 2}', {"a": 1, "b": 2}),
        (b'{"features": [1, 2], "id": 7}', [1, 2]),
    ],
)
def test_numbers_in_every_dialect(payload: bytes, values: Any) -> None:
    assert numbers(payload) == values


@pytest.mark.parametrize("payload", [b"[1, 2", b'{"features": 7}', b"\xff\xfe", b"[" * 100_000, b'{"features": "x"}'])
def test_what_holds_no_numbers_is_an_error(payload: bytes) -> None:
    with pytest.raises(BackendError, match="expected"):
        numbers(payload)


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        (b"\xef\xbb\xbf1,2.5\r\n", ["1", "2.5"]),
        ("1,2.5\n".encode("utf-16"), ["1", "2.5"]),
        (b"1,5;2,5;3\r", ["1.5", "2.5", "3"]),
        (b"1;2.5;3", ["1", "2.5", "3"]),
        (b"1,5\t2\n", ["1.5", "2"]),
        (b"1,2,3\0", ["1", "2", "3"]),
        (b"\xef\xbb\xbf[1, 2]", [1, 2]),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    ],
)
def test_numbers_as_other_programs_write_them(payload: bytes, values: Any) -> None:
    assert numbers(payload) == values


@pytest.mark.parametrize(
    "payload",
    [b"1.234,5;2", b"1,\x002,3", b"\xef\xbb\xbf", b"", b"\0", b"[NaN]", b"[1e999]", b'{"a": 1, "a": 2}', b"[[" * 2000,
     b"[" + b"9" * 401 + b"]", b'{"\\ud800": 1}', b"\xe2\x80\xa8\xff", "1,2".encode("utf-16-le")],
)  # fmt: skip
def test_what_is_mixed_cut_or_beyond_numbers_is_refused(payload: bytes) -> None:
    with pytest.raises(BackendError, match="expected"):
        numbers(payload)
