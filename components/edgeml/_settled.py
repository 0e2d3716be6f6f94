"""What Greengrass and its tools do to configuration, undone before it is converted: see edgeml.config."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import inspect

from edgeml.errors import ConfigError
from edgeml.numbers import integer, number

MAX_DEPTH = 64  # of objects and lists; ours are a handful deep

MAX_SHOWN = 80  # characters of a key or value in an error

Path = tuple[str | int, ...]


def unwrapped(info: Any) -> Any:
    """`info` without the descriptions around it: msgspec wraps a type that has any in Metadata."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    return info


def member(union: inspect.UnionType, raw: Any) -> Any:
    """The type of `union` that the object or list `raw` is for: the struct it names by its tag, or the only one.

    Without a tag it is for the struct that says `untagged`, where there is one.
    """
    kinds = [unwrapped(kind) for kind in union.types]
    wanted = inspect.CollectionType if isinstance(raw, list) else inspect.DictType | inspect.StructType
    fitting = [kind for kind in kinds if isinstance(kind, wanted)]
    for kind in fitting:
        tag_field = getattr(kind, "tag_field", None)
        if tag_field is not None and raw.get(tag_field) == getattr(kind, "tag", None):
            return kind
        if tag_field is not None and raw.get(tag_field) is None and _is_untagged(kind):
            return kind
    return next((kind for kind in fitting if not getattr(kind, "tag_field", None)), None)


def _is_untagged(kind: Any) -> bool:
    return bool(getattr(kind.cls, "untagged", False))


def settled(info: Any, value: Any, path: Path = ()) -> Any:
    """`value` for the type `info`: integral doubles as integers, entries of null removed. Raises ConfigError.

    What does not fit the type is left as it is, for msgspec to refuse.
    """
    info = unwrapped(info)
    if len(path) > MAX_DEPTH:
        raise ConfigError(dotted(path[:3]), f"expected at most {MAX_DEPTH} levels, found more")
    if isinstance(value, Mapping):
        return _object(member(info, value) if isinstance(info, inspect.UnionType) else info, value, path)
    if isinstance(value, list):
        chosen = member(info, value) if isinstance(info, inspect.UnionType) else info
        item = chosen.item_type if isinstance(chosen, inspect.CollectionType) else inspect.AnyType()
        return [settled(item, each, (*path, index)) for index, each in enumerate(value)]
    if isinstance(value, str):
        _real_text(value, path)
    return _scalar([unwrapped(kind) for kind in getattr(info, "types", [info])], value, path)


def _object(info: Any, value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """null removes an entry of a map, and gives a field its default: the core itself merges null as a value."""
    found = {}
    for key, each in value.items():
        _real_text(key, path)
        kind = _field_type(info, key)
        if each is not None or _takes_null(kind):
            found[key] = settled(kind, each, (*path, key))
    if isinstance(info, inspect.StructType) and info.tag_field and _is_untagged(info):
        found.setdefault(info.tag_field, info.tag)
    return found


def _field_type(info: Any, key: str) -> Any:
    if isinstance(info, inspect.DictType):
        return unwrapped(info.value_type)
    fields = info.fields if isinstance(info, inspect.StructType) else ()
    return next((unwrapped(field.type) for field in fields if field.encode_name == key), inspect.AnyType())


def _takes_null(info: Any) -> bool:
    kinds = [unwrapped(kind) for kind in getattr(info, "types", [info])]
    return any(isinstance(kind, inspect.NoneType) for kind in kinds)


def _scalar(kinds: Sequence[Any], value: Any, path: Path) -> Any:
    """A number as what the first fitting of `kinds` wants; text stays text where text is wanted."""
    few = [choice for kind in kinds if isinstance(kind, inspect.LiteralType) for choice in kind.values]
    if isinstance(value, bool) and (word := "on" if value else "off") in few:
        return word  # YAML takes an unquoted on or off for a truth value
    if isinstance(value, bool) or value is None or (value in few and isinstance(value, str)):
        return value
    if isinstance(value, str):
        if any(isinstance(kind, inspect.StrType) for kind in kinds):
            return value
        return _number_of_text(kinds, few, value, path)
    wanted = {type(kind) for kind in kinds}
    if inspect.FloatType in wanted and isinstance(value, float):
        return _finite(value, path)
    integral = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    if integral and (inspect.IntType in wanted or any(type(choice) is int for choice in few)):
        return int(value)
    if integral and inspect.BoolType in wanted and value in (0.0, 1.0):
        return bool(value)
    return value


def _number_of_text(kinds: Sequence[Any], few: Sequence[Any], text: str, path: Path) -> Any:
    """msgspec reads numbers from text, too, but takes `nan`, and no `30.0` for an enumeration."""
    wanted = {type(kind) for kind in kinds}
    try:
        if inspect.IntType in wanted or any(type(choice) is int for choice in few):
            return integer(text)
    except ValueError:
        pass
    try:
        if inspect.FloatType in wanted:
            return number(text)
    except ValueError as error:
        if not {inspect.BoolType, inspect.NoneType} & wanted:
            raise ConfigError(dotted(path), f"expected float, found {shown(text)}") from error
    return text


def _finite(value: float, path: Path) -> float:
    if not math.isfinite(value):
        raise ConfigError(dotted(path), f"expected float, a finite one, found {value}")
    return value


def _real_text(text: str, path: Path) -> None:
    """JSON can spell half a character; nothing can write it down again, not even the log."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(dotted(path), f"expected text, found half a surrogate pair in {text[:40]!a}") from error


def choices(info: Any, raw: Any, path: Path) -> list[str]:
    """What may stand at `path` of `raw`, where that is one of a few: values, or the tags of a union's structs."""
    for step in path:
        info = unwrapped(info)
        if isinstance(info, inspect.UnionType):
            tagged = [kind for kind in map(unwrapped, info.types) if getattr(kind, "tag_field", None) == step]
            if tagged:
                return [str(kind.tag) for kind in tagged]
            info = member(info, raw)
        info = info.item_type if isinstance(info, inspect.CollectionType) else _field_type(info, str(step))
        raw = raw[step]
    kinds = [unwrapped(kind) for kind in getattr(unwrapped(info), "types", [unwrapped(info)])]
    found = [str(choice) for kind in kinds if isinstance(kind, inspect.LiteralType) for choice in kind.values]
    return [*found, "a list"] if found and any(isinstance(kind, inspect.CollectionType) for kind in kinds) else found


def listed(words: Sequence[str]) -> str:
    return " or ".join(words) if len(words) < 4 else f"one of {', '.join(words)}"


def dotted(path: Sequence[str | int]) -> str:
    return ".".join(cut(str(step)) for step in path)


def shown(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    try:
        text = msgspec.json.encode(value).decode()
    except (ValueError, TypeError, OverflowError, RecursionError):
        text = ascii(value)
    return cut(text)


def cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
