"""Greengrass configuration to typed structs, and back to words when it is wrong.

Greengrass hands over JSON objects whose scalars may be strings: Nucleus Lite does so for every scalar of a YAML
recipe, consoles and other people's scripts do so at will. What greengrass-cli or an IPC client merges has doubles for
integers. Conversion is therefore lenient about scalars (30.0, "30" and "30.0" are the integer 30) and strict about
everything else: structure, bounds, choices, and how a number is written (edgeml.numbers). An entry of a map that is
null is not there, a field that is null has its default. `accessControl` belongs to the core and is passed over.
"""

import difflib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from edgeml._settled import choices, cut, dotted, listed, member, settled, shown, unwrapped
from edgeml.errors import ConfigError

C = TypeVar("C")

CORE_KEYS = frozenset({"accessControl"})
# Milliseconds for a large Config, and each reading of one asks several times.
_info: Callable[[Any], Any] = functools.lru_cache(maxsize=1)(msgspec.inspect.type_info)


def load(kind: type[C], raw: Mapping[str, Any]) -> C:
    """`raw` as a `kind`. Raises ConfigError with the dotted path, what was found there and what is allowed."""
    values = settled(_info(kind), {key: value for key, value in raw.items() if key not in CORE_KEYS})
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(kind, values, raw, str(error)) from error


def unknown_keys(kind: Any, raw: Any) -> list[tuple[str, str]]:
    """(path, sentence) for each key of `raw` that `kind` has no field for: misspelt, or left by an older version.

    Greengrass keeps the keys of earlier deployments, so these are worth a problem and never an error.
    """
    return list(_unknown(_info(kind), raw, ()))


def allowed(kind: Any, raw: Any, message: str) -> str:
    """`, expected ...` for a ValidationError's `message` about one of a few choices in `raw`; else empty."""
    place = re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]", message.partition(" - at `$")[2])
    path = tuple(int(index) if index else name for name, index in place)
    try:
        words = choices(_info(kind), raw, path) if message.startswith("Invalid ") else []
    except (LookupError, TypeError):  # below the entry of a map, which msgspec does not name
        words = []
    return f", expected {listed(words)}" if words else ""


def _unknown(info: Any, raw: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:
    info = unwrapped(info)
    if isinstance(info, msgspec.inspect.UnionType) and isinstance(raw, Mapping | list):
        info = member(info, raw)
    if isinstance(info, msgspec.inspect.DictType) and isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _unknown(info.value_type, value, (*path, key))
    elif isinstance(info, msgspec.inspect.CollectionType) and isinstance(raw, list):
        for index, item in enumerate(raw):
            yield from _unknown(info.item_type, item, (*path, index))
    elif isinstance(info, msgspec.inspect.StructType) and isinstance(raw, Mapping):
        fields = {field.encode_name: field.type for field in info.fields}
        if info.tag_field is not None:
            fields[info.tag_field] = msgspec.inspect.AnyType()
        for key, value in raw.items():
            if key in fields:
                yield from _unknown(fields[key], value, (*path, key))
            elif value is None:
                continue  # null is how a key that another version or kind had is taken back
            elif path or key not in CORE_KEYS:
                where = dotted((*path, key)).encode(errors="backslashreplace").decode()
                near = _nearest(str(key), list(fields))
                yield where, f"{where} is not known" + (f", did you mean {near}?" if near else "")


def _nearest(key: str, fields: list[str]) -> str | None:
    """The field that was meant: whatever its case, and with or without `_` between its words."""
    plain = {field.replace("_", "").lower(): field for field in fields}
    near = difflib.get_close_matches(key[:100].replace("_", "").lower(), plain, n=1)
    return plain[near[0]] if near else None


def _explained(kind: Any, values: Mapping[str, Any], raw: Mapping[str, Any], message: str) -> ConfigError:
    problem, _, place = message.partition(" - at `")
    of_key = place.startswith("key` in `")  # the name of an entry is at fault, not what it holds
    path = _resolved(kind, values, place.removeprefix("key` in `").lstrip("$").rstrip("`"), problem)
    if of_key:
        path.append(_guilty_key(kind, values, path, problem))
    found: Any = raw
    for step in path:
        found = found[step]
    expected = re.sub(", got `.*`", "", problem[:1].lower() + problem[1:]).replace("`", "")
    if expected.startswith("invalid ") and (allowed := choices(_info(kind), values, tuple(path))):
        expected = f"{cut(expected)}, expected {listed(allowed)}"
    return ConfigError(dotted(path), f"{expected}, found {shown(path[-1] if of_key else found)}")


def _resolved(kind: Any, values: Mapping[str, Any], place: str, problem: str) -> list[str | int]:
    """msgspec's `.cameras[...].fps` as real keys. It does not name dictionary keys, so each is tried on its own."""
    steps: list[str | int] = []
    for name, index in re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", place):
        if name:
            steps.append(name)
        elif index.isdigit():
            steps.append(int(index))
        else:
            steps.append(_guilty_key(kind, values, steps, problem))
    return steps


def _guilty_key(kind: Any, values: Mapping[str, Any], steps: list[str | int], problem: str) -> str:
    container: Any = values
    for step in steps:
        container = container[step]
    for key in container:
        try:
            msgspec.convert(_with_only(values, [*steps, key]), kind, strict=False)
        except msgspec.ValidationError as error:
            if str(error).startswith(problem):
                return str(key)
    return str(next(iter(container)))


def _with_only(values: Any, steps: list[Any]) -> Any:
    """A copy of `values` in which the mapping at `steps[:-1]` keeps no key but `steps[-1]`."""
    if len(steps) == 1:
        return {steps[0]: values[steps[0]]}
    if isinstance(values, list):
        return [_with_only(v, steps[1:]) if i == steps[0] else v for i, v in enumerate(values)]
    return {**values, steps[0]: _with_only(values[steps[0]], steps[1:])}
