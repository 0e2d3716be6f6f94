"""Numbers from foreign text, by one strict rule: ASCII digits, sign, point, exponent, finite, nothing around them.

Python's own `int` and `float` also take `1_000`, fullwidth and Arabic digits, blanks, `nan` and `infinity`: what was
never meant as a number then passes as one. Whoever allows blanks strips them first.
"""

import math
import re

MAX_LENGTH = 400  # characters; more than that is no number that anybody means, and would take its time
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]+(?:\.0*)?")


def number(text: str) -> float:
    """`text` as a finite float. Raises ValueError, which quotes it."""
    if len(text) <= MAX_LENGTH and _NUMBER.fullmatch(text):
        value = float(text)
        if math.isfinite(value):
            return value
    raise ValueError(f"{text[:40]!r} is no number")


def measured(value: object) -> float:
    """A number of a message, written as a number or as text, as a finite float. Raises ValueError for anything else."""
    if isinstance(value, str):
        return number(value)
    try:
        found = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer of more than 308 digits
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"{str(value)[:40] if isinstance(value, float) else type(value).__name__} is no measurement")
    return found


def integer(text: str) -> int:
    """`text` as an integer; `30.0` is one, too, as software without integers writes it. Raises ValueError."""
    if len(text) <= MAX_LENGTH and _INTEGER.fullmatch(text):
        return int(text.partition(".")[0])
    raise ValueError(f"{text[:40]!r} is no integer")
