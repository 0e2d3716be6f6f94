"""Character classes of Java's regular expressions, for `re`, which has no unions, intersections or properties."""

import re
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache

LINE_END = r"[\n\r\x85\u2028\u2029]"
ESCAPED_SETS = {  # in lower case; the upper case letter is all other characters
    "d": "0-9",
    "w": "0-9A-Za-z_",
    "s": r"\ \t\n\x0b\f\r",
    "h": r"\ \t\xa0\u1680\u180e\u2000-\u200a\u202f\u205f\u3000",
    "v": r"\n\x0b\f\r\x85\u2028\u2029",
}
_POSIX = {
    "Lower": "a-z",
    "Upper": "A-Z",
    "ASCII": r"\x00-\x7f",
    "Alpha": "a-zA-Z",
    "Digit": "0-9",
    "Alnum": "a-zA-Z0-9",
    "Punct": r"!-/:-@\[-`{-\~",
    "Graph": r"!-\~",
    "Print": r"\ -\~",
    "Blank": r"\ \t",
    "Cntrl": r"\x00-\x1f\x7f",
    "XDigit": "0-9a-fA-F",
    "Space": r"\ \t\n\x0b\f\r",
}
_ALIASES = {"Letter": "L", "Digit": "Nd", "Punctuation": "P", "Control": "Cc"}
_CHARACTER = re.compile(r"[A-Za-z0-9]|\\(?:x..|u....|U........)")
_PREFIXES = ("Is", "gc=", "general_category=")


class JavaRegexError(ValueError):
    """Java would refuse it, or Python cannot say it; the text names the construct."""


def escaped(char: str) -> str:
    """`char` as a literal, in a class as well as outside."""
    if char.isalnum() and char.isascii():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@dataclass(frozen=True)
class Set:
    """A set of characters: what stands between brackets, or a pattern of one character where brackets cannot say it."""

    content: str
    negated: bool = False
    complex: str = ""

    def pattern(self) -> str:
        if self.complex:
            return self.complex
        if not self.content:
            return r"[\s\S]" if self.negated else r"(?!)"
        return f"[{'^' if self.negated else ''}{self.content}]"

    def is_empty(self) -> bool:
        return not (self.content or self.complex or self.negated)

    def is_character(self) -> bool:
        return not self.complex and not self.negated and _CHARACTER.fullmatch(self.content) is not None

    def joined(self, other: "Set") -> "Set":
        if other.is_empty() or self.is_empty():
            return self if other.is_empty() else other
        if not (self.negated or self.complex or other.negated or other.complex):
            return Set(self.content + other.content)
        return Set("", complex=f"(?:{self.pattern()}|{other.pattern()})")

    def common(self, other: "Set") -> "Set":
        return Set("", complex=f"(?:(?={self.pattern()}){other.pattern()})")

    def inverted(self) -> "Set":
        if self.complex:
            return Set("", complex=rf"(?:(?!{self.complex})[\s\S])")
        return Set(self.content, not self.negated)


def property_set(name: str, *, negated: bool) -> Set:
    r"""The set of `\p{name}`. Raises JavaRegexError for scripts, blocks and properties that Python has no data of."""
    if name in _POSIX:
        return Set(_POSIX[name], negated)
    shortened = next((name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)), name)
    category = _ALIASES.get(shortened, shortened)
    content = _category(category) if len(category) <= 2 else ""
    if not content:
        raise JavaRegexError(f"\\{'P' if negated else 'p'}{{{name}}}")
    return Set(content, negated)


@cache
def _category(name: str) -> str:
    """All characters of a general category such as `L` or `Lu`, as ranges."""
    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)).startswith(name):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{escaped(chr(low))}-{escaped(chr(high))}" for low, high in ranges)
