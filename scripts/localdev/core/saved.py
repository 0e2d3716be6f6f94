"""What a core keeps over its end: which components are deployed, at which version, and their configuration."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localdev.core.config_store import Leaf, Tree
from localdev.core.profiles import Profile

FORMAT = 1


class StateError(Exception):
    """A state file that cannot be used; the text says why."""


@dataclass
class State:
    """`roots` are what was asked for, `versions` all that is deployed; `run_with` is USER[:GROUP] by component."""

    profile: Profile
    roots: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    run_with: dict[str, str] = field(default_factory=dict)
    configurations: dict[str, Tree] = field(default_factory=dict)


def save(path: Path, state: State) -> None:
    """Writes a state, for the core's user only; a reader sees the old or the new one."""
    document = {
        "format": FORMAT,
        "profile": state.profile.value,
        "roots": state.roots,
        "versions": state.versions,
        "run_with": state.run_with,
        "configurations": {name: _encode(tree) for name, tree in state.configurations.items()},
    }
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(document, file)
    fresh.rename(path)


def load(path: Path, profile: Profile) -> State:
    """The state that was saved last, empty if none was. StateError if it is of another profile or damaged."""
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT or document["profile"] != profile.value:
            raise StateError(f"{path} was written by a core of another kind ({document['profile']})")
        trees = {name: _decode(tree) for name, tree in document["configurations"].items()}
        return State(profile, document["roots"], document["versions"], document["run_with"], trees)
    except FileNotFoundError:
        return State(profile)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise StateError(f"{path} cannot be read: {error!r}") from error


def _encode(tree: Tree) -> dict[str, Any]:
    """Containers as objects, leaves as [value, time]."""
    return {key: [node.value, node.modified] if isinstance(node, Leaf) else _encode(node) for key, node in tree.items()}


def _decode(document: dict[str, Any]) -> Tree:
    return {key: Leaf(*node) if isinstance(node, list) else _decode(node) for key, node in document.items()}
