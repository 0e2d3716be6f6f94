"""Component recipes (format 2020-01-25): reading a file, and choosing what applies to this machine.

The Java nucleus reads keys without case; Nucleus Lite wants them exactly as documented and turns every scalar of a
YAML recipe into a string. Source: aws-greengrass-component-common, PlatformHelper and RecipeLoader.
"""

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml import CBaseLoader, CSafeLoader

from localdev.core.profiles import Profile
from localdev.core.semver import Version, VersionError

SUFFIXES = (".yaml", ".yml", ".json")

ERROR_RESET_SECONDS = 3600.0
DEEPEST = 200  # levels of lists and mappings
LONG = 10_000  # bytes; what is shorter is not too deep for libyaml's loaders, which recurse in C

MOST = 100_000  # values, those counted twice that an alias repeats
TOO_DEEP = f"more than {DEEPEST} levels of lists and mappings"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "aarch64", "armv7l": "arm", "armv6l": "arm", "i686": "x86"}
_STEPS = ("bootstrap", "install", "startup", "run", "shutdown", "recover", "uninstall")
DEFAULT_TIMEOUTS = {"install": 120.0, "startup": 120.0, "shutdown": 15.0, "recover": 60.0}


class RecipeError(Exception):
    """A recipe that cannot be read or used; the text says why."""


class _TypedLoader(CSafeLoader):
    """As the nucleus' YAML reader: no dates, and only true and false are booleans."""


_TypedLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool"))]
    for first, resolvers in CSafeLoader.yaml_implicit_resolvers.items()
}
_TypedLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
)


@dataclass(frozen=True)
class Step:
    """One lifecycle step. `key` is how the recipe names it, as logs show it (`Run.Script`)."""

    key: str
    script: str
    timeout: float | None
    setenv: dict[str, str]
    skipif: str | None
    privileged: bool = False


@dataclass(frozen=True)
class Artifact:
    """One artifact of the chosen manifest. `read` and `execute` are NONE, OWNER or ALL."""

    uri: str
    unarchive: bool
    read: str
    execute: str

    @property
    def file_name(self) -> str:
        """Last segment of the URI: the file's name on the device."""
        return self.uri.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Dependency:
    """What a component needs. `hard`: it restarts when the dependency does."""

    requirement: str
    hard: bool


@dataclass(frozen=True)
class Recipe:
    """What a recipe says for this machine. `lifecycle` still holds its variables."""

    name: str
    version: Version
    defaults: dict[str, Any]
    dependencies: dict[str, Dependency]
    artifacts: list[Artifact]
    lifecycle: dict[str, Any] = field(default_factory=dict)
    error_reset: float = ERROR_RESET_SECONDS

    @property
    def numeric_install_timeout(self) -> bool:
        """Whether `Timeout` of the install step is a number and no text."""
        install = Fields(self.lifecycle, Profile.JAVA).get("install")
        return isinstance(install, dict) and isinstance(Fields(install, Profile.JAVA).get("Timeout"), int | float)


def read(path: Path, profile: Profile) -> tuple[dict[str, Any], bytes]:
    """A recipe file as the profile's core parses it, and its bytes. RecipeError if it cannot be parsed."""
    raw = path.read_bytes()
    return parse(raw, path.suffix, profile, str(path)), raw


def parse(raw: bytes, suffix: str, profile: Profile, where: str = "recipe") -> dict[str, Any]:
    """The document of a recipe, `suffix` being .json, .yaml or .yml. RecipeError if it cannot be parsed."""
    try:
        if suffix == ".json":
            document = json.loads(raw)
        else:
            _check_depth(raw)
            # Lite: all scalars of a YAML recipe are strings, which is what BaseLoader makes.
            document = yaml.load(raw, CBaseLoader if profile is Profile.LITE else _TypedLoader)  # noqa: S506
        _check_size(document)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise RecipeError(f"{where}: {error}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{where}: no mapping")
    return document


def _check_depth(raw: bytes) -> None:
    """ValueError for YAML that would end the process. A level takes a byte at least."""
    if len(raw) <= LONG:
        return
    depth = 0
    for event in yaml.parse(raw, CBaseLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(TOO_DEEP)


def _check_size(document: Any) -> None:
    """ValueError for what those who copy or write it cannot: too deep, or large by aliases that stand for others."""
    level, values = {id(document): (document, 1)}, 0  # each object once, and how often it stands there
    for _ in range(DEEPEST):
        below: dict[int, tuple[Any, int]] = {}
        for holder, times in level.values():
            for value in holder.values() if isinstance(holder, dict) else holder if isinstance(holder, list) else ():
                below[id(value)] = value, below.get(id(value), (value, 0))[1] + times
        if not below:
            return
        level, values = below, values + sum(times for _, times in below.values())
        if values > MOST:
            raise ValueError(f"more than {MOST} values")
    raise ValueError(TOO_DEEP)


_KINDS: dict[Any, str] = {dict: "mapping", list: "list"}


class Fields:
    """Access to a mapping's keys: without case in Java, exact in Lite."""

    def __init__(self, mapping: Any, profile: Profile) -> None:
        """RecipeError if `mapping` is no mapping; None stands for an empty one."""
        if not isinstance(mapping, dict | None):
            raise RecipeError(f"{mapping!r} must be a mapping")
        self.mapping: dict[Any, Any] = mapping or {}
        self._exact = profile is Profile.LITE
        self._profile = profile

    def key(self, name: str) -> str | None:
        """The key as the recipe writes it."""
        if self._exact:
            return name if name in self.mapping else None
        return next((key for key in self.mapping if str(key).lower() == name.lower()), None)

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or `default` if it is absent or null."""
        key = self.key(name)
        value = self.mapping[key] if key is not None else None
        return default if value is None else value

    def expect(self, kind: type | tuple[type, ...], *names: str) -> None:
        """RecipeError if the value at a key is of another type; null and absence are fine."""
        for name in names:
            value = self.get(name)
            if value is not None and not isinstance(value, kind):
                raise RecipeError(f"{name} must be a {_KINDS.get(kind, 'script or a mapping')}, not {value!r}")

    def expect_each(self, kind: type) -> None:
        """RecipeError if the value at any key is of another type."""
        self.expect(kind, *(str(key) for key in self.mapping))

    def inner(self, name: str) -> "Fields":
        """The mapping at a key; empty if there is none."""
        return Fields(self.get(name), self._profile)


def interpret(document: dict[str, Any], profile: Profile) -> Recipe:
    """The recipe for this machine. RecipeError if it lacks something or no manifest fits the platform."""
    check_shape(document, profile)
    top = Fields(document, profile)
    name = top.get("ComponentName")
    try:
        version = Version(str(top.get("ComponentVersion")))
    except VersionError as error:
        raise RecipeError(f"{name}: ComponentVersion {error}") from error
    manifest = choose_manifest(top, profile)
    if manifest is None:
        raise RecipeError(f"{name} {version}: no manifest fits platform {platform_attributes(profile)}")
    lifecycle = manifest.get("Lifecycle") or _select(
        top.get("Lifecycle", {}), [str(selection) for selection in manifest.get("Selections", [])]
    )
    if not isinstance(lifecycle, dict):
        raise RecipeError(f"{name} {version}: Lifecycle selects {lifecycle!r}, which is no mapping")
    return Recipe(
        name=str(name),
        version=version,
        defaults=dict(top.inner("ComponentConfiguration").get("DefaultConfiguration", {})),
        dependencies={
            str(dependency): _dependency(Fields(properties, profile))
            for dependency, properties in top.get("ComponentDependencies", {}).items()
        },
        artifacts=[_artifact(Fields(artifact, profile)) for artifact in manifest.get("Artifacts", [])],
        lifecycle=lifecycle,
        error_reset=_seconds("errorResetTime", Fields(lifecycle, profile).get("errorResetTime", ERROR_RESET_SECONDS)),
    )


def check_shape(document: dict[str, Any], profile: Profile) -> None:
    """RecipeError if something that must be a mapping or a list is not."""
    top = Fields(document, profile)
    top.expect(dict, "ComponentConfiguration", "ComponentDependencies", "Lifecycle")
    top.inner("ComponentConfiguration").expect(dict, "DefaultConfiguration")
    top.inner("ComponentDependencies").expect_each(dict)
    top.expect(list, "Manifests")
    for manifest in top.get("Manifests", []):
        if manifest is None:
            raise RecipeError("Manifests must not have empty entries")
        fields = Fields(manifest, profile)
        fields.expect(dict, "Platform", "Lifecycle")
        fields.expect(list, "Artifacts", "Selections")
        for artifact in fields.get("Artifacts", []):
            Fields(artifact, profile).expect(dict, "Permission")
        lifecycle = fields.inner("Lifecycle")
        lifecycle.expect(dict, "Setenv")
        for step in _STEPS:
            if isinstance(lifecycle.get(step), dict):
                lifecycle.inner(step).expect(dict, "Setenv")
            lifecycle.expect((dict, str), step)


def platform_attributes(profile: Profile) -> dict[str, str]:
    """What a manifest's Platform is compared with."""
    machine = platform.machine()
    attributes = {"os": "linux", "architecture": _ARCHITECTURES.get(machine, machine)}
    if attributes["architecture"] == "arm":
        attributes["architecture.detail"] = machine
    if profile is Profile.LITE:
        attributes["runtime"] = "aws_nucleus_lite"
    return attributes


def choose_manifest(top: Fields, profile: Profile) -> Fields | None:
    """The first manifest whose Platform fits this machine."""
    attributes = platform_attributes(profile)
    for manifest in top.get("Manifests", []):
        fields = Fields(manifest, profile)
        wanted = fields.get("Platform", {})
        if all(_platform_fits(str(key), pattern, attributes) for key, pattern in wanted.items()):
            if profile is Profile.LITE and "runtime" not in wanted:
                continue
            return fields
    return None


def _platform_fits(key: str, pattern: Any, attributes: Mapping[str, str]) -> bool:
    if pattern is None or pattern == "*":
        return True
    actual, text = attributes.get(key.lower()), str(pattern)
    if len(text) > 1 and text.startswith("/") and text.endswith("/"):
        return actual is not None and re.fullmatch(text[1:-1], actual) is not None
    return (key.lower() in ("os", "architecture") and text in ("all", "any")) or text == actual


def _select(lifecycle: Any, selections: list[str]) -> Any:
    """The part of a global Lifecycle that a manifest's Selections name."""
    if not isinstance(lifecycle, dict):
        return lifecycle
    keywords = {"all", "linux", "windows", "darwin", *selections}
    if keywords & lifecycle.keys():
        chosen = next((word for word in [*(selections or ["linux"]), "all"] if word in lifecycle), None)
        return _select(lifecycle[chosen], selections) if chosen else {}
    return {key: _select(value, selections) for key, value in lifecycle.items()}


def _dependency(properties: Fields) -> Dependency:
    hard = str(properties.get("DependencyType", "HARD")).upper() == "HARD"
    return Dependency(str(properties.get("VersionRequirement", "*")), hard)


def _artifact(artifact: Fields) -> Artifact:
    permission = artifact.inner("Permission")
    return Artifact(
        uri=str(artifact.get("Uri", "")),
        unarchive=str(artifact.get("Unarchive", "NONE")).upper() == "ZIP",
        read=str(permission.get("Read", "OWNER")).upper(),
        execute=str(permission.get("Execute", "NONE")).upper(),
    )


def steps(lifecycle: dict[str, Any], profile: Profile) -> dict[str, Step]:
    """The steps of an interpolated lifecycle by lower-case name. RecipeError if one cannot be used."""
    fields = Fields(lifecycle, profile)
    shared = {str(key): as_text(value) for key, value in fields.get("Setenv", {}).items()}
    found = {}
    for name in _STEPS:
        value = fields.get(name)
        if value:
            found[name] = _step(name, str(fields.key(name)), value, shared, profile)
    return found


def _step(name: str, key: str, value: Any, shared: dict[str, str], profile: Profile) -> Step:
    timeout = DEFAULT_TIMEOUTS.get(name)
    if not isinstance(value, dict):
        return Step(key, str(value), timeout, shared, None)
    fields = Fields(value, profile)
    script_key = fields.key("Script")
    given = fields.get("Timeout")
    if given is not None:
        timeout = _seconds(f"{key}.Timeout", given)
    setenv = shared | {str(name): as_text(text) for name, text in fields.get("Setenv", {}).items()}
    skipif = fields.get("Skipif")
    script = str(fields.get("Script", ""))
    privileged = str(fields.get("RequiresPrivilege", False)).lower() == "true"
    return Step(f"{key}.{script_key}", script, timeout, setenv, str(skipif) if skipif else None, privileged)


def _seconds(where: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}: {value!r} is no number of seconds") from error


def as_text(value: Any) -> str:
    """A configuration value as it appears in a script: JSON but for plain strings."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)
