import re

import pytest

from edgeml.errors import ConfigError
from serial_scraper import pattern_check, records

BAD = [
    r"(\d+\s*)+$",
    r"(?:\d+,?)+$",
    r"(a+)+",
    r"(?:a*)*b",
    r"((a+)b*)*$",
    r"(?:\d+\.?\d*,)+$",
    r"(?:x(?:y+y+)z)+",
    r"(?:a+|b)+$",
    r"(?:[a-z]+[0-9x]*-)+$",
    r"(?:a+?)+?$",
    r"(?:.+,)+$",
    r"(?:a{1,30}){2,40}$",
    r"(?=(?:a+)+$)a",
    r"(?i:(?:a+A)+)$",
    r"x|(?:\w+\s?)*$",
    r"(?i)(?:a+A)+$",
    "(?:[\u0430-\u044f]+[\u0434-\u044f]-)+$",
    r"(?:\u0430+\u0430-)+$",
]
GOOD = [
    r"level=(?P<level>[\d.]+) valve=(?P<valve>on|off)",
    r"(?P<n>\d+)\s*$",
    r"(?:\d+,)+$",
    r"(?:\s*\d+;)*",
    r"(?:(\w+)=)+",
    r"(?:ab)+c*",
    r"(?:\d{3},)+",
    r"(?:-?\d,)+",
    r"\d+\s+\d+",
    r"(?:a+){2}",
    r"(?:[A-Z][a-z]+\s)+",
]


@pytest.mark.parametrize("pattern", BAD)
def test_repetitions_that_can_be_cut_in_many_ways_are_refused(pattern: str) -> None:
    re.compile(pattern)
    assert pattern_check.nested(pattern) is not None
    with pytest.raises(ConfigError, match=r"^configuration pattern: a repetition stands in another one"):
        records.regex(pattern, {}, lambda line: None)


@pytest.mark.parametrize("pattern", GOOD)
def test_others_are_taken(pattern: str) -> None:
    assert pattern_check.nested(pattern) is None
