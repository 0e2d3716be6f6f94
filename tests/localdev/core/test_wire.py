import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localdev.core.wire import MAX_FRAME_BYTES, Decoder, Frame, FrameError, Header, HeaderType, encode, seal

# A busy machine is no failure.
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

VALUES = {
    HeaderType.TRUE: st.just(True),
    HeaderType.FALSE: st.just(False),
    HeaderType.INT8: st.integers(-(2**7), 2**7 - 1),
    HeaderType.INT16: st.integers(-(2**15), 2**15 - 1),
    HeaderType.INT32: st.integers(-(2**31), 2**31 - 1),
    HeaderType.INT64: st.integers(-(2**63), 2**63 - 1),
    HeaderType.BYTES: st.binary(max_size=20),
    HeaderType.STRING: st.text(max_size=10),
    HeaderType.TIMESTAMP: st.integers(-(2**63), 2**63 - 1),
    HeaderType.UUID: st.binary(min_size=16, max_size=16),
}
NAMES = st.text(st.characters(codec="ascii"), min_size=1, max_size=8).map(str.lower)
HEADERS: st.SearchStrategy[dict[str, Header]] = st.dictionaries(
    NAMES, st.sampled_from(HeaderType).flatmap(lambda kind: st.tuples(st.just(int(kind)), VALUES[kind])), max_size=4
)
FRAMES = st.builds(Frame, HEADERS, st.binary(max_size=40))

# Written out by hand from the format: one string header `a` = `b`, payload `hi`.
KNOWN_BLOCK = b"\x01a\x07\x00\x01b"
KNOWN_PRELUDE = struct.pack(">II", 24, 6)
KNOWN_HEAD = KNOWN_PRELUDE + struct.pack(">I", zlib.crc32(KNOWN_PRELUDE)) + KNOWN_BLOCK + b"hi"
KNOWN = KNOWN_HEAD + struct.pack(">I", zlib.crc32(KNOWN_HEAD))


def test_a_known_frame_is_encoded_and_decoded_byte_by_byte() -> None:
    headers: dict[str, Header] = {"a": (HeaderType.STRING, "b")}
    assert encode(headers, b"hi") == KNOWN
    assert list(Decoder().feed(KNOWN)) == [Frame(headers, b"hi")]


@quick
@given(st.lists(FRAMES, max_size=3), st.data())
def test_frames_survive_any_cut_of_the_stream(frames: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(encode(frame.headers, frame.payload) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder = Decoder()
    decoded = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        decoded += list(decoder.feed(stream[start:end]))
    assert decoded == frames


@quick
@given(FRAMES, st.data())
def test_a_flipped_bit_never_passes_as_a_frame(frame: Frame, data: st.DataObject) -> None:
    stream = bytearray(encode(frame.headers, frame.payload))
    # The length fields' bits may only make the decoder wait; the CRC over them must still say no.
    bit = data.draw(st.integers(0, len(stream) * 8 - 1))
    stream[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(FrameError):
        list(Decoder().feed(bytes(stream)))


@quick
@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(noise: bytes) -> None:
    block = noise[:60]
    for stream in (noise, seal(block, noise)):
        try:
            frames = list(Decoder().feed(stream))
        except FrameError:
            continue
        assert all(isinstance(frame, Frame) for frame in frames)


def test_header_names_are_compared_without_case() -> None:
    (frame,) = Decoder().feed(encode({":Message-TYPE": (HeaderType.INT32, 4)}))
    assert frame.headers == {":message-type": (HeaderType.INT32, 4)}


@pytest.mark.parametrize(
    "headers",
    [
        {"": (HeaderType.TRUE, True)},
        {"n" * 256: (HeaderType.TRUE, True)},
        {"n": (HeaderType.STRING, "x" * 32_768)},
        {"n": (HeaderType.INT8, 200)},
        {"n": (HeaderType.UUID, b"short")},
        {"n": (10, 1)},
        {f"n{number}": (HeaderType.TRUE, True) for number in range(1025)},
    ],
)
def test_headers_beyond_a_limit_are_refused(headers: dict[str, Header]) -> None:
    with pytest.raises(FrameError):
        encode(headers)


def test_frame_limits() -> None:
    largest = seal(b"", bytes(MAX_FRAME_BYTES - 16))
    (frame,) = Decoder().feed(largest)
    assert len(frame.payload) == MAX_FRAME_BYTES - 16
    with pytest.raises(FrameError, match="at most 25165824"):
        seal(b"", bytes(MAX_FRAME_BYTES - 15))
    list(Decoder(limit=10_000).feed(seal(b"", bytes(9_984))))
    with pytest.raises(FrameError, match="10001 bytes, at most 10000"):
        list(Decoder(limit=10_000).feed(seal(b"", bytes(9_985))[:12]))


def test_header_length_beyond_the_frame_is_refused() -> None:
    lengths = struct.pack(">II", 20, 10)
    with pytest.raises(FrameError, match="with 10 bytes of headers"):
        list(Decoder().feed(lengths + struct.pack(">I", zlib.crc32(lengths)) + bytes(8)))
