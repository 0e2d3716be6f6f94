"""JSON that readers trip over."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.errors import JsonError
from edgeml.json_limits import MAX_DEPTH, MAX_DIGITS, loads, too_deep

BAD = {
    "nothing": (b"", "Expecting value"),
    "huge": (b"[" + b" " * 3_000_000 + b"]", "3000002 bytes"),
    "deep lists": (b"[" * 3000 + b"]" * 3000, "more than 64 deep"),
    "deep objects": (b'{"a":' * 3000, "more than 64 deep"),
    "deep and open": (b"[" * 100_000, "more than 64 deep"),
    "deep behind text": (b'["\\"[", ' + b"[" * 65, "more than 64 deep"),
    "a key twice": (b'{"sha256": 1, "sha256": 2}', "'sha256' occurs twice"),
    "a key twice below": (b'[{"a": {"b": 1, "b": 1}}]', "'b' occurs twice"),
    "NaN": (b'{"a": NaN}', "NaN is no finite number"),
    "Infinity": (b"[-Infinity]", "-Infinity is no finite number"),
    "infinite by size": (b"[1e999]", "1e999 is no finite number"),
    "401 digits": (b"9" * 401, "401 digits"),
    "half a pair": (b'{"a": "\\ud800"}', "surrogates not allowed"),
    "half a pair as a key": (b'{"\\udfff": 1}', "surrogates not allowed"),
    "Latin-1": (b'"caf\xe9"', "can't decode"),
    "UTF-16": ('"a"'.encode("utf-16"), "can't decode"),
    "a surrogate as UTF-8": (b'"\xed\xa0\x80"', "can't decode"),
    "NUL": (b'{"a": 1}\0', "Extra data"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_is_refused_is_refused_in_words_and_soon(fault: str) -> None:
    data, words = BAD[fault]
    began = time.monotonic()
    with pytest.raises(JsonError, match=r"^model\.json: ") as caught:
        loads(data, "model.json")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300
    assert time.monotonic() - began < 2


def test_what_is_good_is_read() -> None:
    assert loads(b'\xef\xbb\xbf{"a": [1, 2.5, "\\ud83d\\ude00", "[[[", null]}') == {
        "a": [1, 2.5, "\U0001f600", "[[[", None]
    }
    assert loads("[" * 64 + "]" * 64) is not None
    assert loads(json.dumps([[]] * 1000)) == [[]] * 1000
    assert loads(b"12345678901234567890") == 12345678901234567890


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.text('[]{}"\\:, aé\ud800') | st.integers(-9, 9), lambda inner: st.lists(inner, max_size=3), max_leaves=30
    )
)
def test_depth_is_counted_as_the_reader_nests(value: object) -> None:
    def depth(item: object) -> int:
        return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0

    data = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    for limit in range(5):
        assert too_deep(data, limit) == (depth(value) > limit)


@pytest.mark.parametrize(
    ("size", "fits"), [(2, True), (9, True), (10, True), (11, False)], ids=["least", "below", "at", "above"]
)
def test_bytes_up_to_the_limit_are_read(size: int, fits: bool) -> None:
    data = b"[" + b" " * (size - 2) + b"]"
    if fits:
        assert loads(data, max_bytes=10) == []
    else:
        with pytest.raises(JsonError, match="11 bytes, 10 are allowed"):
            loads(data, max_bytes=10)


@pytest.mark.parametrize("limit", [0, 1, MAX_DEPTH])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_up_to_the_limit_is_read(limit: int, opening: str) -> None:
    for depth in range(max(0, limit - 1), limit + 2):
        data = opening * depth + "1" + ("]" if opening == "[" else "}") * depth
        if depth <= limit:
            loads(data, max_depth=limit)
        else:
            with pytest.raises(JsonError, match=f"nested more than {limit} deep"):
                loads(data, max_depth=limit)


@pytest.mark.parametrize("digits", [1, MAX_DIGITS - 1, MAX_DIGITS])
def test_integers_up_to_what_a_float_holds_are_read(digits: int) -> None:
    assert loads("9" * digits) == 10**digits - 1
    with pytest.raises(JsonError, match=f"{MAX_DIGITS + 1} digits"):
        loads("9" * (MAX_DIGITS + 1))
