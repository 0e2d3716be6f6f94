"""Regular expressions that can take exponential time: a repetition in a repetition, whose turns can be cut differently.

This walks what `re` itself parses, by its private modules; nothing else here knows them.
"""

import re
import sys
from typing import Any

if sys.version_info >= (3, 11):
    from re import _compiler, _parser  # type: ignore[attr-defined]
else:
    import sre_compile as _compiler
    import sre_parse as _parser

MANY = 20  # a repetition up to a higher number counts as one without end
_CHARACTERS = [chr(code) for code in range(0x3100)]
_IGNORES_CASE = re.compile(r"\(\?[a-zA-Z]*i")
_REPEATS = {"MAX_REPEAT", "MIN_REPEAT"}
_SINGLE = {"LITERAL", "NOT_LITERAL", "IN", "ANY", "CATEGORY"}


def nested(pattern: str) -> str | None:
    """What is wrong, in words; None when nothing is. `pattern` is one that `re` compiles."""
    # Where a part may ignore cases, as `(?i:...)`, all are taken to: this can only refuse more.
    return _walked(_parser.parse(pattern, re.IGNORECASE if _IGNORES_CASE.search(pattern) else 0))


def _walked(tree: Any) -> str | None:
    for operator, given in tree:
        name = str(operator)
        if name in _REPEATS and given[1] > MANY and _repeats(given[2]) and not _is_clear(given[2]):
            return "a repetition stands in another one, whose turns have no mark of their own"
        for part in _parts(given):
            if (found := _walked(part)) is not None:
                return found
    return None


def _parts(given: Any) -> list[Any]:
    """All patterns within the arguments of an operator."""
    if isinstance(given, _parser.SubPattern):
        return [given]
    if isinstance(given, tuple | list):
        return [part for item in given for part in _parts(item)]
    return []


def _repeats(tree: Any) -> bool:
    """Whether a repetition without end stands anywhere in it."""
    for operator, given in tree:
        if str(operator) in _REPEATS and given[1] > MANY:
            return True
        if any(_repeats(part) for part in _parts(given)):
            return True
    return False


def _is_clear(tree: Any) -> bool:
    """Whether a turn is made of single characters and their repetitions that share none, one of them exactly once."""
    seen: set[str] = set()
    is_marked = False
    for operator, given in _flat(tree):
        item, once = (operator, given), True
        if str(operator) in _REPEATS:
            if len(given[2]) != 1:
                return False
            item, once = given[2][0], given[0] == given[1]
        if str(item[0]) not in _SINGLE:
            return False
        characters = _characters(tree, item)
        if characters & seen:
            return False
        seen |= characters
        is_marked = is_marked or once
    return is_marked


def _flat(tree: Any) -> list[tuple[Any, Any]]:
    """The items of a turn, with plain groups opened."""
    found: list[tuple[Any, Any]] = []
    for operator, given in tree:
        if str(operator) == "SUBPATTERN" and not (given[1] or given[2]):
            found += _flat(given[3])
        else:
            found.append((operator, given))
    return found


def _characters(tree: Any, item: tuple[Any, Any]) -> set[str]:
    compiled = _compiler.compile(_parser.SubPattern(tree.state, [item]), tree.state.flags)
    return {character for character in _CHARACTERS if compiled.match(character)}
