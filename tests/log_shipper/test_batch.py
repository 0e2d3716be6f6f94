"""What goes into one call of PutLogEvents: as many whole lines of one day as its limits allow, and none beyond."""

import pytest

from log_shipper.batch import MAX_EVENTS, OVERHEAD, Batch, pieces, utf8_cut, whole_lines
from log_shipper.parse import DAY_MS
from log_shipper.records import Records

LINES = b"12345678\n" * 10
EACH = 8 + OVERHEAD  # as CloudWatch counts a line


@pytest.mark.parametrize(
    ("room", "lines"),
    [
        (0, 0),
        (EACH - 1, 0),
        (EACH, 1),
        (2 * EACH - 1, 1),
        (2 * EACH, 2),
        (10 * EACH - 1, 9),
        (10 * EACH, 10),
        (10**6, 10),
    ],
)
def test_lines_fit_while_there_is_room_for_them_and_their_overhead(room: int, lines: int) -> None:
    assert whole_lines(LINES, room, MAX_EVENTS) == (9 * lines, lines)


@pytest.mark.parametrize(("events", "lines"), [(0, 0), (1, 1), (9, 9), (10, 10), (11, 10)])
def test_no_more_lines_than_a_call_may_have_events(events: int, lines: int) -> None:
    assert whole_lines(LINES, 10**6, events) == (9 * lines, lines)


def test_a_line_without_end_is_no_line_yet() -> None:
    assert whole_lines(b"", 10**6, 10) == whole_lines(b"12345678", 10**6, 10) == (0, 0)
    assert whole_lines(b"1\n12345678", 10**6, 10) == (2, 1)


@pytest.mark.parametrize("letter", ["a", "ü", "€", "😀"])
@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 24, 25])
def test_a_long_text_is_cut_between_characters(letter: str, length: int) -> None:
    found = pieces(letter * length, 12)
    assert "".join(found) == letter * length
    assert all(0 < len(piece.encode()) <= 12 for piece in found)
    assert len(found) == -(-length * len(letter.encode()) // 12)


@pytest.mark.parametrize(("size", "cut"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4), (5, 4)])
def test_no_character_is_cut_in_two(size: int, cut: int) -> None:
    assert utf8_cut("üüü".encode(), size) == cut


@pytest.mark.parametrize(
    ("times", "taken"),
    [
        ([], 0),
        ([5], 1),
        ([0, DAY_MS - 1], 2),
        ([0, DAY_MS], 1),
        ([DAY_MS - 1, DAY_MS], 1),
        ([DAY_MS, 2 * DAY_MS - 1, 2 * DAY_MS], 2),
        ([DAY_MS, DAY_MS - 1], 1),
    ],
)
def test_a_batch_is_of_one_day(times: list[int], taken: int) -> None:
    batch = Batch()
    texts = [str(time) for time in times]
    assert batch.add(Records(times, texts, list(range(len(times))))) == taken
    assert (batch.times, batch.texts) == (times[:taken], texts[:taken])
