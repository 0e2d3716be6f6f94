"""Greengrass configuration to typed structs, and back to words when it is wrong.

Greengrass hands over JSON objects whose scalars may be strings: Nucleus Lite does so for every scalar of a YAML
recipe, consoles and other people's scripts do so at will. Conversion is therefore lenient about scalars and strict
about everything else: structure, bounds, choices. `accessControl` belongs to the core and is passed over.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from edgeml.errors import ConfigError

C = TypeVar("C")

CORE_KEYS = frozenset({"accessControl"})


def load(kind: type[C], raw: Mapping[str, Any]) -> C:
    """`raw` as a `kind`. Raises ConfigError with the dotted path, what was found there and what is allowed."""
    values = {key: value for key, value in raw.items() if key not in CORE_KEYS}
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(kind, values, str(error)) from error


def unknown_keys(kind: Any, raw: Any, path: str = "") -> list[str]:
    """One sentence for each key of `raw` that `kind` has no field for: a misspelling, or left by an older version.

    Greengrass keeps the keys of earlier deployments, so these are worth a warning and never an error.
    """
    info = msgspec.inspect.type_info(kind) if isinstance(kind, type) else kind
    if isinstance(info, msgspec.inspect.UnionType):
        info = _member(info, raw)
    if isinstance(info, msgspec.inspect.DictType) and isinstance(raw, Mapping):
        return [text for key, value in raw.items() for text in unknown_keys(info.value_type, value, f"{path}{key}.")]
    if isinstance(info, msgspec.inspect.ListType) and isinstance(raw, list):
        return [text for i, item in enumerate(raw) for text in unknown_keys(info.item_type, item, f"{path}{i}.")]
    if not isinstance(info, msgspec.inspect.StructType) or not isinstance(raw, Mapping):
        return []
    fields = {field.encode_name: field.type for field in info.fields}
    if info.tag_field is not None:
        fields[info.tag_field] = msgspec.inspect.AnyType()
    found = []
    for key, value in raw.items():
        if key in fields:
            found += unknown_keys(fields[key], value, f"{path}{key}.")
        elif key not in CORE_KEYS:
            near = difflib.get_close_matches(str(key), fields, n=1)
            found.append(f"{path}{key} is not known" + (f", did you mean {near[0]}?" if near else ""))
    return found


def _member(union: msgspec.inspect.UnionType, raw: Any) -> Any:
    """The struct of a tagged union that `raw` chooses, or the union's only object type."""
    structs = [kind for kind in union.types if isinstance(kind, msgspec.inspect.StructType)]
    for kind in structs:
        if kind.tag_field is not None and isinstance(raw, Mapping) and raw.get(kind.tag_field) == kind.tag:
            return kind
    others = [kind for kind in union.types if isinstance(kind, msgspec.inspect.DictType | msgspec.inspect.ListType)]
    return next(iter([*structs, *others]), None)


def _explained(kind: Any, values: Mapping[str, Any], message: str) -> ConfigError:
    problem, _, place = message.partition(" - at `$")
    path = _resolved(kind, values, place.rstrip("`"), problem)
    found: Any = values
    for step in path:
        found = found[step]
    dotted = ".".join(str(step) for step in path)
    expected = re.sub(", got `.*`", "", problem[:1].lower() + problem[1:]).replace("`", "")
    return ConfigError(dotted, f"{expected}, found {_shown(found)}")


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


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
