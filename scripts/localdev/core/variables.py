"""Recipe variables such as {artifacts:path} and {configuration:/pointer}. Source: KernelConfigResolver.

In the Java nucleus what is no variable stays as it is and nothing is escaped. In Nucleus Lite every `{` of a script
starts a variable and values are escaped for use within double quotes.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localdev.core.profiles import Profile
from localdev.core.recipe import RecipeError, as_text

_OWN = re.compile(r"\{([.\w-]+):([^:}]*)\}")
_OTHERS = re.compile(r"\{([.\w-]+):([.\w-]+):([^:}]*)\}")
_LITE = re.compile(r"\{([^}]*)\}?")


@dataclass(frozen=True)
class Paths:
    """Where a core keeps what components use."""

    root: Path

    def artifacts(self, name: str, version: str) -> Path:
        """Artifacts as delivered."""
        return self.root / "packages" / "artifacts" / name / version

    def unarchived(self, name: str, version: str) -> Path:
        """Artifacts unpacked, each ZIP in a folder of its name."""
        return self.root / "packages" / "artifacts-unarchived" / name / version

    def work(self, name: str) -> Path:
        """Working directory."""
        return self.root / "work" / name


@dataclass(frozen=True)
class Scope:
    """What the variables of one component stand for. `configuration` is plain JSON."""

    name: str
    version: str
    paths: Paths
    thing_name: str
    configuration: Any

    def value(self, namespace: str, key: str, profile: Profile) -> str | None:
        """The text of a variable, or None if there is none of that name."""
        slash = "/" if profile is Profile.LITE else ""
        match namespace, key:
            case "artifacts", "path":
                return f"{self.paths.artifacts(self.name, self.version)}{slash}"
            case "artifacts", "decompressedPath":
                return f"{self.paths.unarchived(self.name, self.version)}{slash}"
            case "work", "path":
                return f"{self.paths.work(self.name)}{slash}"
            case "kernel", "rootPath":
                return str(self.paths.root)
            case "iot", "thingName":
                return self.thing_name
            case "configuration", pointer:
                return _point(self.configuration, pointer)
        return None


_MISSING = object()


def _point(document: Any, pointer: str) -> str | None:
    """Text of the value at an RFC 6901 pointer, or None."""
    node = document
    for part in pointer.split("/")[1:] if pointer else ():
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(key, _MISSING)
        elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
        if node is _MISSING:
            return None
    return as_text(node)


def interpolate(
    lifecycle: Any, scope: Scope, dependencies: Mapping[str, Scope], profile: Profile, complain: Callable[[str], None]
) -> Any:
    """A lifecycle with every variable in its strings replaced; the rest is copied as it is.

    `dependencies` are the scopes of direct dependencies. What stands for nothing is told to `complain` and stays
    (Java), or raises RecipeError (Lite, whose runner would cut the script short there).
    """

    def walk(node: Any, key: str) -> Any:
        if isinstance(node, dict):
            return {name: walk(value, "Setenv" if key == "Setenv" else str(name)) for name, value in node.items()}
        if not isinstance(node, str):
            return node
        if profile is Profile.LITE:
            return _interpolate_lite(node, scope, in_script=key != "Setenv")
        return _interpolate_java(node, scope, dependencies, complain)

    return walk(lifecycle, "")


def _interpolate_java(
    text: str, scope: Scope, dependencies: Mapping[str, Scope], complain: Callable[[str], None]
) -> str:
    def replace(owner: Scope | None, namespace: str, key: str, original: str) -> str:
        value = owner.value(namespace, key, Profile.JAVA) if owner else None
        if value is None:
            complain(f"{scope.name}: {original} stands for nothing")
            return original
        return value

    text = _OWN.sub(lambda match: replace(scope, match[1], match[2], match[0]), text)
    return _OTHERS.sub(lambda match: replace(dependencies.get(match[1]), match[2], match[3], match[0]), text)


def _interpolate_lite(text: str, scope: Scope, *, in_script: bool) -> str:
    def replace(match: re.Match[str]) -> str:
        namespace, _, key = match[1].partition(":")
        value = scope.value(namespace, key, Profile.LITE)
        if value is None:
            raise RecipeError(f"{scope.name}: {match[0]} stands for nothing")
        # Setenv reaches the process without a shell here, so that it needs none of Lite's quoting.
        return re.sub(r'(["\\$`])', r"\\\1", value) if in_script else value

    return _LITE.sub(replace, text)
