"""Configuration of the deployed components: trees whose every leaf knows when it was last changed.

Containers are objects; everything else, lists included, is a leaf. Keys are compared without case and keep the
case in which they were first written. Times are epoch seconds. Source: ConfigStoreIPCEventStreamAgent and
KernelConfigResolver of aws-greengrass-nucleus.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEFAULTS_TIME = 1.0
"""Recipe defaults carry this time, so that any other write is newer."""

KeyPath = tuple[str, ...]
Listener = Callable[[str, KeyPath], None]


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


def find_key(tree: Mapping[str, Any], key: str) -> str | None:
    """The key of `tree` that equals `key` but for case; the exact one first."""
    if key in tree:
        return key
    folded = key.casefold()
    return next((known for known in tree if known.casefold() == folded), None)


def find(tree: Tree, path: Sequence[str]) -> tuple[KeyPath, Tree | Leaf] | None:
    """The node at `path` and its path as written, or None."""
    node: Tree | Leaf = tree
    written: list[str] = []
    for part in path:
        key = find_key(node, part) if isinstance(node, dict) else None
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


def merge(tree: Tree, value: Mapping[str, Any], modified: float) -> bool:
    """Merges plain JSON into `tree`: objects recursively, anything else replaces unless the leaf there is newer.

    False if a newer leaf was left alone.
    """
    complete = True
    for given, proposed in value.items():
        key = find_key(tree, given) or given
        current = tree.get(key)
        if isinstance(proposed, Mapping):
            if not isinstance(current, dict):
                if isinstance(current, Leaf) and current.modified > modified:
                    complete = False
                    continue
                current = tree[key] = {}
            complete &= merge(current, proposed, modified)
        elif current is not None and any(leaf.modified > modified for _, leaf in leaves(current)):
            complete = False
        else:
            tree[key] = Leaf(copy.deepcopy(proposed), modified)
    return complete


def fill(tree: Tree, defaults: Mapping[str, Any]) -> None:
    """Merges recipe defaults: they fill gaps and never overwrite a key that exists."""
    for key, default in defaults.items():
        known = find_key(tree, key)
        if known is None:
            tree[key] = build({key: default}, DEFAULTS_TIME)[key]
        elif isinstance(default, Mapping):
            current = tree[known]
            if isinstance(current, dict):
                fill(current, default)


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


class ConfigStore:
    """The components' trees, and who listens to their changes."""

    def __init__(self) -> None:
        self._trees: dict[str, Tree] = {}
        self._listeners: dict[str, list[tuple[KeyPath, Listener]]] = {}

    def __contains__(self, component: str) -> bool:
        return component in self._trees

    def snapshot(self, component: str) -> Any:
        """The whole configuration as plain JSON; empty for an unknown component."""
        return plain(self._trees.get(component, {}))

    def get(self, component: str, path: Sequence[str]) -> Any | None:
        """What GetConfiguration answers: the object at `path`, or `{last key: value}` of a leaf; None if absent."""
        found = find(self._trees[component], path) if component in self._trees else None
        if found is None:
            return None
        written, node = found
        return plain(node) if isinstance(node, dict) else {written[-1]: plain(node)}

    def update(self, component: str, path: Sequence[str], value: Mapping[str, Any], modified: float) -> bool:
        """Merges `value` at `path`, which is made if absent. False if a leaf newer than `modified` was left alone."""
        tree = self._trees[component]
        before = copy.deepcopy(tree)
        if find(tree, path) is None:
            modified = max(modified, time.time())
        for part in reversed(path):
            value = {part: value}
        complete = merge(tree, value, modified)
        self._announce(component, before)
        return complete

    def proposal(self, component: str, defaults: Mapping[str, Any], change: Mapping[str, Any], modified: float) -> Tree:
        """The tree after a deployment whose `change` may hold RESET (JSON pointers) and MERGE (an object)."""
        tree = copy.deepcopy(self._trees.get(component, {}))
        for pointer in change.get("RESET") or ():
            reset(tree, pointer)
        fill(tree, defaults)
        newest = max((leaf.modified for _, leaf in leaves(tree)), default=modified)
        merge(tree, change.get("MERGE") or {}, max(modified, newest))
        return tree

    def replace(self, component: str, tree: Tree) -> None:
        """Sets a component's whole tree."""
        before = self._trees.get(component, {})
        self._trees[component] = tree
        self._announce(component, before)

    def remove(self, component: str) -> None:
        """Forgets a component that has been removed."""
        self._trees.pop(component, None)

    def listen(self, component: str, path: Sequence[str], listener: Listener) -> Callable[[], None] | None:
        """Calls `listener(component, key path)` for each leaf changed at or below `path`, until the answer is called.

        None if there is no such key.
        """
        found = find(self._trees[component], path) if component in self._trees else None
        if found is None:
            return None
        entry = (found[0], listener)
        listeners = self._listeners.setdefault(component, [])
        listeners.append(entry)
        return lambda: listeners.remove(entry)

    def _announce(self, component: str, before: Tree) -> None:
        old = {path: leaf.value for path, leaf in leaves(before)}
        new = {path: leaf.value for path, leaf in leaves(self._trees[component])}
        changed = [path for path in {**old, **new} if path not in old or path not in new or old[path] != new[path]]
        for prefix, listener in list(self._listeners.get(component, ())):
            for path in changed:
                if path[: len(prefix)] == prefix:
                    listener(component, path)
