"""Secrets out of what people read: URLs, pipelines of GStreamer, and texts of foreign errors that quote them.

Of a URL scheme, host and path are shown, never what stands before its last `@`, and no value of its query. People
write passwords as they are, with blanks, `@`, `/`, `#` and `?` inside; where that leaves a doubt, less is shown.
"""

import re
from collections.abc import Iterator

HIDDEN = "***"
MAX_SHOWN = 200  # characters of a URL

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://")
_QUERY = re.compile(r"(?<=[^\s?])\?[\w.%~+\[\]-]{0,64}=([^'\"\n]*)")
_WORD = re.compile(r"(?<=[^\s?])\?[\w.%~+\[\]-]{0,64}=[^\s'\"<>]*")
_PROPERTY = re.compile(
    r"(?i)\b((?:user|proxy)-(?:id|pw)|passw(?:or)?d|passphrase|pwd|loginpas)=(?:\"[^\"\n]*\"|[^\s&;,'\"]+)"
)
_USER = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}:[^\s'\"<>/]{1,256}@(?=[\w\[])")  # of a URL without a scheme
_PORT = re.compile(r"((?:integer value as|nonnumeric port:) )'[^'\n]*'")  # Python's words quote half a password
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]{2,60}\]|[A-Za-z0-9._-]{1,255})(?::\d{1,5})?")
_CERTAIN_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]{2,60}\]|localhost|[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+)(?::\d{1,5})?")
_VALUE = re.compile(r"=[^&;/]*")
_PLAIN = frozenset({"device", "device-index", "sensor-id", "num-buffers", "latency", "pattern", "protocols", "is-live"})
_CAPS = re.compile(r"[a-z]+/[a-z0-9-]+")
_ELEMENT = re.compile(r"[A-Za-z0-9_-]{1,64}[.:]{0,2}")
_MIN_KNOWN = 4  # shorter pieces stand in too many words to be hidden but where they are quoted


def url(location: str) -> str:
    """A URL for people: scheme, host and path. A text without a scheme is taken for one whose scheme was left out."""
    scheme, found, rest = location.partition("://")
    if not found:
        scheme, rest = "", location
    clean = f"{scheme}{found}{_place(rest)}"
    return "".join(c if c.isprintable() else "." for c in clean)[:MAX_SHOWN]


def pipeline(text: str) -> str:
    """A GStreamer pipeline for people: its elements, and of its properties only those that are known to be harmless."""
    shown: list[str] = []
    unsure = -1  # where a URL began that may go on behind a blank
    for token in _tokens(text):
        if token == "!":  # noqa: S105  (a separator)
            unsure = -1
        elif unsure >= 0 and "@" in token and not re.match(r"[\w-]+=", token):
            shown[unsure:] = [f"{shown[unsure].partition('=')[0]}={HIDDEN}"]
            continue
        shown.append(_property(token))
        if "://" in token and "@" not in token:
            unsure = len(shown) - 1
    return " ".join(shown)


def location(where: str) -> str:
    """A URL, a pipeline, or a path (shown as it is)."""
    if _SCHEME.match(where):
        return url(where)
    if " ! " in where or re.match(r"\s*[\w-]+\s+[\w-]+=", where):
        return pipeline(where)
    is_path = where.startswith(("/", "./", "../")) and not where.startswith("//")
    return url(where) if "://" in where or ("@" in where and not is_path) else where


def text(message: str, *known: str) -> str:
    """A text of others, an error above all, without the secrets of the URLs in it.

    `known` are the URLs and pipelines that it may speak of: with them, pieces that cannot be told by themselves (a
    password behind a blank, a query without its host) are found, too.
    """
    for secret in known:
        for piece, instead in _pieces(secret):
            if piece in message:
                message = message.replace(piece, instead)
    if "?" in message:
        message = _QUERY.sub(_cut, message)
    if "=" in message:
        message = _PROPERTY.sub(rf"\1={HIDDEN}", message)
    if "port" in message.lower():
        message = _PORT.sub(rf"\1{HIDDEN}", message)
    if "@" in message:
        message = _USER.sub(f"{HIDDEN}@", message)
    if "://" not in message:
        return message
    return "\n".join(_line(line) for line in message.split("\n"))


def _cut(query: re.Match[str]) -> str:
    """A query reaches to the quote that ends it, or else to the next blank."""
    if query.string[query.end() : query.end() + 1] in ("'", '"'):
        return f"?{HIDDEN}"
    return _WORD.sub(f"?{HIDDEN}", f"x{query.group()}")[1:]  # the lookbehind wants to see a character


def _place(rest: str) -> str:
    """Host and path of what follows the `://`."""
    before, at, after = rest.rpartition("@")
    if at and "?" in before:
        host = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if _CERTAIN_HOST.fullmatch(host):  # the `@` belongs to the query
            after = before.partition("?")[0].rpartition("@")[2]
        elif "=" in before.partition("?")[2]:  # a password with a `?` inside, or a user and a query: who knows
            return HIDDEN
    elif not at:
        after = rest
    after = re.split(r"[?#]", after, maxsplit=1)[0]
    host, slash, path = after.partition("/")
    if not _HOST.fullmatch(host) and host:
        host, slash, path = HIDDEN, "", ""  # half of `user:password`, say
    return f"{host}{slash}{_VALUE.sub(f'={HIDDEN}', path)}"


def _line(line: str) -> str:
    """A line of text; each URL reaches to the last `@` before the next one, and then to the end of its word."""
    starts = list(_SCHEME.finditer(line))
    if not starts:
        return line
    made = [line[: starts[0].start()]]
    for index, start in enumerate(starts):
        end = starts[index + 1].start() if index + 1 < len(starts) else len(line)
        body = line[start.end() : end]
        at = body.rfind("@") + 1
        tail = re.search(r"[\s'\"<>]", body[at:])
        cut = at + (tail.start() if tail else len(body) - at)
        trail = len(body[:cut]) - len(body[:cut].rstrip(":,.;)]}"))
        made.append(start.group() + _place(body[: cut - trail]) + body[cut - trail :])
    return "".join(made)


def _tokens(text: str) -> list[str]:
    import shlex  # here and below: what every process loads is kept small

    try:
        return shlex.split(text)
    except ValueError:  # an unbalanced quote: what begins with it may be a secret
        return [*re.split(r"['\"]", text, maxsplit=1)[0].split(), HIDDEN]


def _property(token: str) -> str:
    """One word of a pipeline."""
    key, equals, value = token.partition("=")
    if _CAPS.match(token):
        return token if "@" not in token and "://" not in token else HIDDEN
    if not equals:
        return token if token == "!" or _ELEMENT.fullmatch(token) else HIDDEN  # noqa: S105
    if "://" in value:
        return f"{key}={url(value)}"
    if key in _PLAIN or (key in ("location", "uri") and "@" not in value and "?" not in value):
        return token
    return f"{key}={HIDDEN}"


def _pieces(secret: str) -> Iterator[tuple[str, str]]:
    """What of a known URL or pipeline must not be read, each with what stands for it, the longest first."""
    from urllib.parse import quote, unquote

    found = {secret: location(secret)} if location(secret) != secret else {}
    for token in [secret] if "://" in secret.split(" ")[0] else _tokens(secret):
        value = token if "://" in token.partition("=")[0] else token.partition("=")[2]
        if "://" in value:
            for piece in _parts(value):
                found.setdefault(piece, HIDDEN)
        elif value and _property(token) != token:
            found.setdefault(value, HIDDEN)
    for piece in list(found):
        for other in (quote(piece), quote(piece, safe=""), unquote(piece)):
            found.setdefault(other, HIDDEN)
    for piece in [piece for piece in found if 0 < len(piece) < _MIN_KNOWN]:
        found.update({f"'{piece}'": HIDDEN, f'"{piece}"': HIDDEN})
    usable = [piece for piece in found if len(piece) >= _MIN_KNOWN or piece[:1] in ("'", '"')]
    return iter((piece, found[piece]) for piece in sorted(usable, key=len, reverse=True))


def _parts(address: str) -> Iterator[str]:
    """User information, password and query values of a URL."""
    rest = address.partition("://")[2]
    before, at, _ = rest.rpartition("@")
    if at:
        yield before
        yield before.partition(":")[2]
        yield from re.split(r"[\s@/#?]", before.partition(":")[2])
    query = rest.partition("?")[2]
    yield query
    for item in re.split(r"[&;]", query):
        yield item.partition("=")[2]
