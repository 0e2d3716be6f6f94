"""Resource patterns of accessControl policies.

Standard patterns: `*` stands for any run of characters, `/` included; `${*}`, `${?}` and `${$}` are the literal
characters. MQTT-style patterns (the IoT Core proxy's) add `+` for one whole level and a trailing `#`.
Source: WildcardTrie of aws-greengrass-nucleus.
"""

import re

_ESCAPE = re.compile(r"\$\{([^}]*)\}")


class PatternError(ValueError):
    """A resource that the nucleus refuses: a bare `?`, or an escape it does not know."""


def compile_standard(pattern: str) -> re.Pattern[str]:
    """A matcher of whole resources. PatternError if the pattern is not allowed."""
    return re.compile(_glob(pattern), re.DOTALL)


def compile_mqtt(pattern: str) -> re.Pattern[str]:
    """As `compile_standard`, with the MQTT wildcards at valid positions; elsewhere they are literal."""
    levels = pattern.split("/")
    tail = ""
    if levels[-1] == "#":
        levels.pop()
        tail = "(?:/.*)?" if levels else ".*"
    return re.compile("/".join("[^/]*" if level == "+" else _glob(level) for level in levels) + tail, re.DOTALL)


def _glob(pattern: str) -> str:
    expression, position = [], 0
    for escape in _ESCAPE.finditer(pattern):
        if escape[1] not in ("*", "?", "$"):
            raise PatternError(f"{pattern!r}: unknown escape {escape[0]}")
        expression += [_plain(pattern[position : escape.start()], pattern), re.escape(escape[1])]
        position = escape.end()
    expression.append(_plain(pattern[position:], pattern))
    return "".join(expression)


def _plain(text: str, pattern: str) -> str:
    if "?" in text:
        raise PatternError(f"{pattern!r}: a literal ? is written ${{?}}")
    return ".*".join(re.escape(part) for part in text.split("*"))
