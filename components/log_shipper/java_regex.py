"""Regular expressions as aws.greengrass.LogManager takes them, in Java's syntax, as Python's `re` has them.

What both know goes over as it is, what can be said otherwise is translated, and the rest is refused by its name.
Syntax: https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/util/regex/Pattern.html
"""

import re
from dataclasses import dataclass, field

from edgeml import patterns
from edgeml.errors import ConfigError
from log_shipper.java_classes import ESCAPED_SETS, LINE_END, JavaRegexError, Set, escaped, property_set

_ENDS = rf"(?:\r\n|{LINE_END})"
_LINE_BREAK = rf"(?:\r\n|(?!\r\n){LINE_END})"
_ANCHORS = {"A": r"\A", "b": r"\b", "B": r"\B", "z": r"\Z", "Z": rf"(?={_ENDS}?\Z)", "R": _LINE_BREAK}
_CONTROL = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a", "e": "\x1b"}
_FLAGS = re.compile(r"\(\?([a-zA-Z]*)(?:-([a-zA-Z]+))?([:)])")
_GROUP = re.compile(r"\(\?(?:P?<([A-Za-z_]\w*)>|[=!>]|<[=!])")  # P: Python's own way, which version 1.0 took
_BACK = re.compile(r"\\k<(?P<java>[A-Za-z]\w*)>|\(\?P=(?P<python>\w+)\)")
_NUMBER = re.compile(r"0[0-3]?[0-7]{1,2}|x[0-9A-Fa-f]{2}|x\{[0-9A-Fa-f]{1,6}\}|u[0-9A-Fa-f]{4}")
_LOW_SURROGATE = re.compile(r"\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})")


def compiled(text: str, where: str) -> re.Pattern[str]:
    """The pattern that `text` is in Java. Raises ConfigError at the path `where`, naming what cannot be translated."""
    try:
        pattern, unicode = translated(text)
        return re.compile(pattern, 0 if unicode else re.ASCII)
    except (JavaRegexError, re.error, RecursionError, OverflowError) as error:
        reason = patterns.reason(error)
        raise ConfigError(where, f"not a regular expression that is understood ({reason}), found {text}") from error


def translated(text: str) -> tuple[str, bool]:
    """Python's form of a Java expression, and whether upper and lower case are Unicode's. Raises JavaRegexError."""
    translator = _Translator(text)
    return translator.run(), translator.unicode


@dataclass
class _Frame:
    """One group, or the whole expression: the flags in force, and the groups opened for flags set midway."""

    flags: frozenset[str]
    opened: list[str] = field(default_factory=list)


class _Translator:
    def __init__(self, text: str) -> None:
        self._text, self._at, self._out = text, 0, list[str]()
        self._frames = [_Frame(frozenset())]
        self.unicode = self.unicode_classes = False

    def run(self) -> str:
        while self._at < len(self._text):
            self._out.append(self._next())
        if len(self._frames) > 1:
            raise JavaRegexError("a group is not closed")
        return "".join(self._out) + ")" * len(self._frames[0].opened)

    def _next(self) -> str:
        char, frame = self._text[self._at], self._frames[-1]
        if (back := _BACK.match(self._text, self._at)) is not None:
            self._at = back.end()
            return f"(?P={back['java'] or back['python']})"
        if char == "\\":
            return self._escape()
        if char == "[":
            return self._class().pattern()
        if char == "(":
            return self._open()
        self._at += 1
        if char == ")":
            if len(self._frames) == 1:
                raise JavaRegexError("unbalanced )")
            return ")" * (len(self._frames.pop().opened) + 1)
        if char == "|":
            return ")" * len(frame.opened) + "|" + "".join(frame.opened)
        if char == ".":
            return r"[\s\S]" if "s" in frame.flags else r"[^\n]" if "d" in frame.flags else rf"[^{LINE_END[1:]}"
        if "x" in frame.flags and (char.isspace() or char == "#"):
            if char == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            return ""
        return char if char in "^$*+?{},-" or char.isalnum() else escaped(char) if char in "#&~ ]}" else char

    def _open(self) -> str:
        frame = self._frames[-1]
        flags = _FLAGS.match(self._text, self._at)
        if flags is not None:
            self._at = flags.end()
            return self._set_flags(flags[1], flags[2] or "", scoped=flags[3] == ":")
        group = _GROUP.match(self._text, self._at)
        if group is None and self._text.startswith("(?", self._at):
            raise JavaRegexError(f"{self._text[self._at : self._at + 4]} is not known")
        start = group[0] if group else "("
        self._at += len(start)
        self._frames.append(_Frame(frame.flags))
        return f"(?P<{group[1]}>" if group is not None and group[1] else start

    def _set_flags(self, on: str, off: str, *, scoped: bool) -> str:
        frame = self._frames[-1]
        if unknown := set(on + off) - set("idmsuxU"):
            raise JavaRegexError(f"flag {min(unknown)}")
        if set(on) & set("uU"):
            if any(self._out):
                raise JavaRegexError("(?u) or (?U) elsewhere than at the start")
            self.unicode, self.unicode_classes = True, "U" in on
        flags = (frame.flags | set(on)) - set(off)
        ours = "".join(sorted(set(on) & set("im"))), "".join(sorted(set(off) & set("im")))
        start = f"(?{ours[0]}{'-' if ours[1] else ''}{ours[1]}:"
        if scoped:
            self._frames.append(_Frame(flags))
            return start
        frame.flags = flags
        if start == "(?:":
            return ""
        frame.opened.append(start)
        return start

    def _escape(self) -> str:
        """What a backslash outside of a class begins."""
        text, at = self._text, self._at
        char = text[at + 1 : at + 2]
        if char == "Q":
            return self._quoted()
        if char in _ANCHORS and not text.startswith("{", at + 2):
            self._at += 2
            return _ANCHORS[char]
        if char in "123456789" and char:
            self._at += 2
            return f"(?:\\{char})"
        return self._set_escape().pattern()

    def _quoted(self) -> str:
        end = self._text.find("\\E", self._at)
        end = len(self._text) if end < 0 else end
        literal, self._at = self._text[self._at + 2 : end], end + 2
        return "".join(map(escaped, literal))

    def _set_escape(self) -> Set:
        """What a backslash begins that stands for one character or a set of them."""
        text, at = self._text, self._at + 1
        char = text[at : at + 1]
        if not char:
            raise JavaRegexError("a backslash at the end")
        if (number := _NUMBER.match(text, at)) is not None:
            self._at = number.end()
            return Set(escaped(self._character(number[0])))
        if char in "pP":
            end = text.find("}", at) + 1 if text.startswith("{", at + 1) else at + 2
            if end <= at + 1 or end > len(text):
                raise JavaRegexError(f"\\{char} without a name")
            self._at = end
            return property_set(text[at + 1 : end].strip("{}"), negated=char == "P")
        self._at = at + 1
        if char in "dDwWsS" and self.unicode_classes:
            return Set(f"\\{char}")
        if char.lower() in ESCAPED_SETS:
            return Set(ESCAPED_SETS[char.lower()], negated=char.isupper())
        if char == "c" and at + 1 < len(text):
            self._at = at + 2
            return Set(escaped(chr(ord(text[at + 1]) ^ 64)))
        if char in _CONTROL:
            return Set(escaped(_CONTROL[char]))
        if char.isascii() and char.isalpha():
            raise JavaRegexError(f"\\{char}")
        return Set(escaped(char))

    def _character(self, number: str) -> str:
        """The character that `0101`, `x41`, `x{1F600}` or `u0041` names, two halves of a pair as one."""
        code = int(number, 8) if number[0] == "0" else int(number[1:].strip("{}"), 16)
        low = _LOW_SURROGATE.match(self._text, self._at) if 0xD800 <= code < 0xDC00 else None
        if low is not None:
            self._at = low.end()
            code = 0x10000 + (code - 0xD800) * 0x400 + int(low[1], 16) - 0xDC00
        if code > 0x10FFFF:
            raise JavaRegexError(f"\\{number} is no character")
        return chr(code)

    def _class(self) -> Set:
        """A class in brackets, with Java's unions and intersections."""
        text = self._text
        self._at += 1
        negated = text.startswith("^", self._at)
        self._at += negated
        first = True
        both, union = list[Set](), Set("")
        while True:
            char = text[self._at : self._at + 1]
            if not char:
                raise JavaRegexError("a class is not closed")
            if char == "]" and not first:
                self._at += 1
                break
            if text.startswith("&&", self._at):
                self._at += 2
                both, union = [*both, union], Set("")
                continue
            first = False
            union = union.joined(self._class_item(char))
        whole = union
        for other in both:
            if not other.is_empty():
                whole = other if whole.is_empty() else whole.common(other)
        return whole.inverted() if negated else whole

    def _class_item(self, char: str) -> Set:
        if char == "[":
            return self._class()
        if "x" in self._frames[-1].flags and char.isspace():
            self._at += 1
            return Set("")
        if self._text.startswith("\\Q", self._at):
            return Set(self._quoted())
        begin = self._class_character(char)
        if not self._text.startswith("-", self._at) or self._text[self._at + 1 : self._at + 2] in ("]", "[", ""):
            return begin
        self._at += 1
        end = self._class_character(self._text[self._at])
        if not (begin.is_character() and end.is_character()):
            raise JavaRegexError("a range whose end is no character")
        return Set(f"{begin.content}-{end.content}")

    def _class_character(self, char: str) -> Set:
        if char == "\\":
            return self._set_escape()
        self._at += 1
        return Set(escaped(char))
