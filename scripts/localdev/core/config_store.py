"""Configuration of the deployed components: trees whose every leaf knows when it was last changed.

Containers are objects; everything else, lists included, is a leaf. Times are epoch seconds, whole milliseconds. How
trees are merged differs between the cores (`merge` of the Java nucleus, `merge_lite`). Source:
ConfigStoreIPCEventStreamAgent, Topics and KernelConfigResolver of aws-greengrass-nucleus, and what real cores answered.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localdev.core.profiles import Profile

DEFAULTS_TIME = 1.0
"""Recipe defaults carry this time, so that any other write is newer."""
LITE_LEAF_BYTES = 1_024

KeyPath = tuple[str, ...]
Listener = Callable[[str, KeyPath], None]


class ConflictError(Exception):
    """A merge that the core cannot make; the text says what stands in its way."""


@dataclass(slots=True)
class Leaf:
    """A value that is no object, and when it was written."""

    value: Any
    modified: float


Tree = dict[str, "Tree | Leaf"]


def build(value: Mapping[str, Any], modified: float) -> Tree:
    """A tree of plain JSON."""
    return {
        key: build(child, modified) if isinstance(child, Mapping) else Leaf(child, modified)
        for key, child in value.items()
    }


def plain(node: Tree | Leaf) -> Any:
    """Plain JSON of a tree or leaf; a copy."""
    if isinstance(node, Leaf):
        return copy.deepcopy(node.value)
    return {key: plain(child) for key, child in node.items()}


def doubles(value: Any) -> Any:
    """JSON as it comes out of the Java nucleus' parser: each number is a double."""
    if isinstance(value, Mapping):
        return {key: doubles(child) for key, child in value.items()}
    if isinstance(value, list):
        return [doubles(child) for child in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def find_key(tree: Mapping[str, Any], key: str, *, exact: bool = False) -> str | None:
    """The key of `tree` that equals `key`: the exact one first, else, unless `exact`, one that differs in case."""
    if key in tree:
        return key
    folded = key.casefold()
    return None if exact else next((known for known in tree if known.casefold() == folded), None)


def find(tree: Tree, path: Sequence[str], *, exact: bool = False) -> tuple[KeyPath, Tree | Leaf] | None:
    """The node at `path` and its path as written, or None."""
    node: Tree | Leaf = tree
    written: list[str] = []
    for part in path:
        key = find_key(node, part, exact=exact) if isinstance(node, dict) else None
        if key is None:
            return None
        assert isinstance(node, dict)  # noqa: S101  (find_key answered)
        node = node[key]
        written.append(key)
    return tuple(written), node


def leaves(node: Tree | Leaf, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Leaf]]:
    """Every leaf below a node, with its path."""
    if isinstance(node, Leaf):
        yield path, node
        return
    for key, child in node.items():
        yield from leaves(child, (*path, key))


def newest(node: Tree | Leaf) -> float:
    """When a node was last changed; 0 for an empty container."""
    return max((leaf.modified for _, leaf in leaves(node)), default=0.0)


def merge(tree: Tree, value: Mapping[str, Any], modified: float, path: KeyPath = ()) -> list[KeyPath]:
    """Merges plain JSON as the Java nucleus does, and answers with the path of each event in its order.

    Objects merge recursively, anything else replaces unless the leaf there is newer; a leaf and a container replace
    each other whatever their times. A new leaf makes two events, for its creation and its value, unless it is null.
    """
    events: list[KeyPath] = []
    for given, proposed in value.items():
        key = find_key(tree, given) or given
        current, place = tree.get(key), (*path, key)
        if isinstance(proposed, Mapping):
            if not isinstance(current, dict):
                current = tree[key] = {}
            events += merge(current, proposed, modified, place)
        elif not isinstance(current, Leaf):
            tree[key] = Leaf(copy.deepcopy(proposed), modified)
            events += [place] * (1 if proposed is None else 2)
        elif current.modified <= modified:
            if not _same(current.value, proposed):
                events.append(place)
            tree[key] = Leaf(copy.deepcopy(proposed), modified)
    return events


def merge_lite(tree: Tree, value: Mapping[str, Any], modified: float, path: KeyPath = ()) -> list[KeyPath]:
    """Merges plain JSON as Nucleus Lite does: newer leaves stay, without a word. ConflictError if a leaf would become
    an object or an object a leaf, or if a leaf is too long.
    """
    events: list[KeyPath] = []
    for key, proposed in value.items():
        current, place = tree.get(key), (*path, key)
        if isinstance(proposed, Mapping):
            if isinstance(current, Leaf):
                raise ConflictError(f"/{'/'.join(place)} is a value, Lite cannot make an object of it")
            events += merge_lite(tree.setdefault(key, {}), proposed, modified, place)  # type: ignore[arg-type]
            continue
        if isinstance(current, dict):
            raise ConflictError(f"/{'/'.join(place)} is an object, Lite cannot make a value of it")
        if len(json.dumps(proposed, separators=(",", ":"), ensure_ascii=False).encode()) > LITE_LEAF_BYTES:
            raise ConflictError(f"/{'/'.join(place)} is longer than {LITE_LEAF_BYTES} bytes")
        if current is None or current.modified <= modified:
            if current is None or not _same(current.value, proposed):
                events.append(place)
            tree[key] = Leaf(copy.deepcopy(proposed), modified)
    return events


def _same(one: Any, other: Any) -> bool:
    """Equality as in Java: 1, 1.0 and true differ."""
    return type(one) is type(other) and bool(one == other)


def fill(tree: Tree, defaults: Mapping[str, Any], *, lite: bool = False, path: KeyPath = ()) -> None:
    """Merges recipe defaults: they fill gaps and never overwrite a key that exists.

    ConflictError in Lite if a default is an object where there is a value, or the other way round.
    """
    for key, default in defaults.items():
        known = find_key(tree, key, exact=lite)
        if known is None:
            tree[key] = build({key: default}, DEFAULTS_TIME)[key]
            continue
        current = tree[known]
        if isinstance(default, Mapping) and isinstance(current, dict):
            fill(current, default, lite=lite, path=(*path, known))
        elif lite and isinstance(default, Mapping) != isinstance(current, dict):
            raise ConflictError(f"/{'/'.join((*path, key))}: Lite cannot merge a default of another kind: reset it")


def reset(tree: Tree, pointer: str) -> None:
    """Removes what an RFC 6901 JSON pointer names; the empty pointer empties the tree, an absent one is ignored."""
    if not pointer:
        tree.clear()
        return
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.removeprefix("/").split("/")]
    parent = find(tree, parts[:-1])
    if parent and isinstance(parent[1], dict):
        key = find_key(parent[1], parts[-1])
        if key is not None:
            del parent[1][key]


def nulls_over_objects(tree: Tree, value: Mapping[str, Any], path: KeyPath = ()) -> Iterator[KeyPath]:
    """Where a merge puts null in the place of an object: the Java nucleus cannot read its own log of that again."""
    for given, proposed in value.items():
        key = find_key(tree, given)
        current = tree.get(key) if key is not None else None
        if isinstance(current, dict):
            if proposed is None:
                yield (*path, given)
            elif isinstance(proposed, Mapping):
                yield from nulls_over_objects(current, proposed, (*path, given))


class ConfigStore:
    """The components' trees, and who listens to their changes."""

    def __init__(self, profile: Profile = Profile.JAVA) -> None:
        self._lite = profile is Profile.LITE
        self._merge = merge_lite if self._lite else merge
        self._trees: dict[str, Tree] = {}
        self._listeners: dict[str, list[tuple[KeyPath, Listener]]] = {}

    def __contains__(self, component: str) -> bool:
        return component in self._trees

    def snapshot(self, component: str) -> Any:
        """The whole configuration as plain JSON; empty for an unknown component."""
        return plain(self._trees.get(component, {}))

    def tree(self, component: str) -> Tree:
        """The tree itself; empty for an unknown component."""
        return self._trees.get(component, {})

    def get(self, component: str, path: Sequence[str]) -> Any | None:
        """What GetConfiguration answers: the object at `path`, or `{last key: value}` of a leaf; None if absent."""
        found = self._find(component, path)
        if found is None:
            return None
        written, node = found
        return plain(node) if isinstance(node, dict) else {written[-1]: plain(node)}

    def _find(self, component: str, path: Sequence[str]) -> tuple[KeyPath, Tree | Leaf] | None:
        return find(self._trees[component], path, exact=self._lite) if component in self._trees else None

    def update(self, component: str, path: Sequence[str], value: Any, modified: float) -> bool:
        """Merges `value` at `path`, which is made if absent.

        False if what is there is newer than `modified` afterwards. ConflictError if it cannot be merged; then nothing
        has changed.
        """
        tree, modified = copy.deepcopy(self._trees[component]), int(modified * 1000) / 1000
        if not self._lite:
            for end in range(len(path)):
                above = find(tree, path[: end + 1])
                if above and isinstance(above[1], Leaf) and end + 1 < len(path):
                    where = ".".join(("services", component, "configuration", *above[0][:-1]))
                    raise ConflictError(f"{above[0][-1]} in {where} is already a leaf, cannot become a container")
            if find(tree, path) is None:
                modified = now()  # the nucleus' rule: what is new takes the present time
        for part in reversed(path):
            value = {part: value}
        events = self._merge(tree, value, modified)
        self._trees[component] = tree
        self._announce(component, events)
        found = find(tree, path)
        return self._lite or found is None or newest(found[1]) <= modified

    def proposal(self, component: str, defaults: Mapping[str, Any], change: Mapping[str, Any], modified: float) -> Tree:
        """The tree after a deployment whose `change` may hold RESET (JSON pointers) and MERGE (an object).

        ConflictError if it cannot be merged.
        """
        tree = copy.deepcopy(self._trees.get(component, {}))
        for pointer in change.get("RESET") or ():
            reset(tree, pointer)
        fill(tree, defaults, lite=self._lite)
        given = change.get("MERGE") or {}
        # A deployment is the newest word, whatever a component wrote with a time in the future.
        self._merge(tree, given if self._lite else doubles(given), max(modified, newest(tree)))
        return tree

    def replace(self, component: str, tree: Tree) -> None:
        """Sets a component's whole tree."""
        before = self._trees.get(component, {})
        self._trees[component] = tree
        self._announce(component, _differences(before, tree, twice=not self._lite))

    def remove(self, component: str) -> None:
        """Forgets a component that has been removed."""
        self._trees.pop(component, None)

    def listen(self, component: str, path: Sequence[str], listener: Listener) -> Callable[[], None] | None:
        """Calls `listener(component, key path)` for each event at or below `path`, until the answer is called.

        None if there is no such key.
        """
        found = self._find(component, path)
        if found is None:
            return None
        entry = (found[0], listener)
        listeners = self._listeners.setdefault(component, [])
        listeners.append(entry)
        return lambda: listeners.remove(entry) if entry in listeners else None

    def forget_listeners(self) -> None:
        """Loses every listener without a word, as Lite's ggconfigd does when it starts anew."""
        for listeners in self._listeners.values():
            listeners.clear()

    def _announce(self, component: str, events: list[KeyPath]) -> None:
        for prefix, listener in list(self._listeners.get(component, ())):
            for path in events:
                if path[: len(prefix)] == prefix:
                    listener(component, path)


def now() -> float:
    """The present time, as trees hold it."""
    return int(time.time() * 1000) / 1000


def _differences(before: Tree, after: Tree, *, twice: bool, path: KeyPath = ()) -> list[KeyPath]:
    """The events of a tree that takes the place of another."""
    events: list[KeyPath] = [(*path, key) for key in before if key not in after]
    for key, node in after.items():
        old, place = before.get(key), (*path, key)
        if isinstance(node, dict):
            events += _differences(old if isinstance(old, dict) else {}, node, twice=twice, path=place)
        elif not isinstance(old, Leaf):
            events += [place] * (2 if twice and node.value is not None else 1)
        elif not _same(old.value, node.value):
            events.append(place)
    return events
