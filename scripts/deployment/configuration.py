"""How deployments change a component's configuration on a device.

A device first resets what `reset` points to, to the recipe's defaults, and then merges `merge`: objects key by key,
anything else replaces. Whatever a deployment does not mention stays as earlier ones left it.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from deployment import DeployError

Values = dict[str, Any]
Path = tuple[str, ...]

MAX_POINTER_CHARACTERS = 256
INDEX = re.compile(r"0|[1-9]\d*")


@dataclass(frozen=True)
class Update:
    """A deployment's configurationUpdate for one component; `reset` holds JSON pointers, "" means everything."""

    merge: Values = field(default_factory=dict)
    reset: tuple[str, ...] = ()

    @classmethod
    def of(cls, specification: dict[str, Any]) -> Self:
        """What a deployment has for a component. Raises DeployError for a merge that is no JSON object."""
        update = specification.get("configurationUpdate", {})
        try:
            merge = json.loads(update.get("merge", "{}"))
        except ValueError as error:
            raise DeployError(f"the deployed configuration is not JSON: {error}: {update['merge']}") from error
        if not isinstance(merge, dict):
            raise DeployError(f"the deployed configuration is not a JSON object: {update['merge']}")
        return cls(merge, tuple(update.get("reset", ())))

    def within(self, specification: dict[str, Any]) -> dict[str, Any]:
        """`specification` with this update in place of its own."""
        update = ({"merge": json.dumps(self.merge)} if self.merge else {}) | (
            {"reset": list(self.reset)} if self.reset else {}
        )
        bare = {key: value for key, value in specification.items() if key != "configurationUpdate"}
        return bare | ({"configurationUpdate": update} if update else {})

    def then(self, later: "Update") -> "Update":
        """One update with the effect of both in turn."""
        values = self.merge
        for pointer in later.reset:
            values = _without(values, parts(pointer))
        return Update(_deep_merged(values, later.merge), tuple(dict.fromkeys([*self.reset, *later.reset])))


def parts(pointer: str) -> Path:
    """The keys that a JSON pointer goes through."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def pointer_to(path: Iterable[str]) -> str:
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


def resettable(path: Path) -> str:
    """The pointer to `path`, or to what contains it where a device would not reset `path` itself.

    The nucleus takes any key that looks like an index for an element of a list and leaves it alone.
    """
    for end, key in enumerate(path):
        if INDEX.fullmatch(key) or not key or len(pointer_to(path[: end + 1])) > MAX_POINTER_CHARACTERS:
            return pointer_to(path[:end])
    return pointer_to(path)


def outermost(pointers: Iterable[str]) -> tuple[str, ...]:
    """`pointers` without those below another one."""
    unique = list(dict.fromkeys(pointers))
    return tuple(p for p in unique if not any(p != other and p.startswith(f"{other}/") for other in unique))


def differing(merged: Values, wanted: Values, path: Path = ()) -> Iterator[Path]:
    """Where something merged `merged`, the paths that merging `wanted` does not bring back."""
    for key, value in merged.items():
        here, both = (*path, key), isinstance(value, dict) and isinstance(wanted.get(key), dict)
        if both:
            yield from differing(value, wanted[key], here)
        elif key not in wanted or isinstance(value, dict) or isinstance(wanted[key], dict):
            yield here


def leaves(values: Values, path: Path = ()) -> Iterator[tuple[str, Any]]:
    """Pointer and value of everything in `values` that is not an object with keys."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield pointer_to((*path, key)), value


def _without(values: Values, path: Path) -> Values:
    """What a reset leaves of `values`; a path that goes on below something that is no object leaves it alone."""
    if not path:
        return {}
    if len(path) == 1:
        return {key: value for key, value in values.items() if key != path[0]}
    below = values.get(path[0])
    return {**values, path[0]: _without(below, path[1:])} if isinstance(below, dict) else values


def _deep_merged(old: Values, new: Values) -> Values:
    both = {key for key in old.keys() & new.keys() if isinstance(old[key], dict) and isinstance(new[key], dict)}
    return old | new | {key: _deep_merged(old[key], new[key]) for key in both}
