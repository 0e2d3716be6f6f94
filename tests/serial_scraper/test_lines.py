import pytest
from hypothesis import given
from hypothesis import strategies as st

from serial_scraper.lines import LineSplitter, text

CAP = 20
pieces = st.lists(st.sampled_from([b"ab", b"\r", b"\n", b"x" * 15, b"\xff\x00", b"y" * 50, b""]), max_size=30)


@given(pieces)
def test_lines_do_not_depend_on_how_the_bytes_were_cut(chunks: list[bytes]) -> None:
    cut, whole, single = LineSplitter(CAP), LineSplitter(CAP), LineSplitter(CAP)
    data = b"".join(chunks)
    expected = [line for line in data.replace(b"\r", b"\n").split(b"\n")[:-1] if line and len(line) <= CAP]
    assert [line for chunk in chunks for line in cut.feed(chunk)] == expected
    assert whole.feed(data) == expected
    assert [line for byte in data for line in single.feed(bytes([byte]))] == expected
    assert cut.too_long == whole.too_long == single.too_long


def test_a_line_over_the_cap_is_dropped_whole_and_counted_once() -> None:
    splitter = LineSplitter(CAP)
    assert splitter.feed(b"short\n" + b"z" * 30) == [b"short"]
    for _ in range(1000):
        assert splitter.feed(b"z" * 100) == []
        assert len(splitter.partial) <= CAP + 100
    assert splitter.feed(b"tail\nnext\n") == [b"next"]
    assert splitter.too_long == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"plain", ("plain", True)),
        ("f\u00fc\u00df \u2603".encode(), ("f\u00fc\u00df \u2603", True)),
        (b"\x1b[2K\x1b[s> hello\x1b[u", ("> hello", True)),
        (b"\x1b[32mI (1) boot\x1b[0m", ("I (1) boot", True)),
        (b"\0\xff\0nul\0s\0", ("nuls", False)),
        (b"\xef\xbb\xbfmarked", ("marked", True)),
        (b"\x11\x02framed\x03\x13\x7f", ("framed", True)),
        (b"\x1bcut \x1b", ("cut ", True)),
        (b"bad \xff byte", ("bad \ufffd byte", False)),
    ],
)
def test_text_is_free_of_terminal_control_and_says_whether_it_was_utf8(line: bytes, expected: tuple[str, bool]) -> None:
    assert text(line) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\r\n"])
@pytest.mark.parametrize("length", [0, 1, CAP - 1, CAP, CAP + 1])
def test_lines_up_to_the_cap_come_out(length: int, end: bytes) -> None:
    line = b"x" * length
    for step in (1, CAP, 1000):
        splitter = LineSplitter(CAP)
        data = line + end + b"next\n"
        found = [each for at in range(0, len(data), step) for each in splitter.feed(data[at : at + step])]
        assert found == [*([line] if 0 < length <= CAP else []), b"next"]
        assert splitter.too_long == (length > CAP)
