"""What a core refuses in a recipe, and above all what Nucleus Lite refuses, with the reason.

Lite truncates, ignores or hangs where the Java nucleus is lenient; here each such recipe is refused. Limits were
measured on a running Nucleus Lite 2.6. One difference on purpose: the stand-in unarchives ZIP artifacts and applies
Permission in the lite profile too, as a real Lite does for a cloud deployment but not for a local one, because the
stand-in's deployments take the place of cloud deployments.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from localdev.core import policy
from localdev.core.config_store import LITE_LEAF_BYTES
from localdev.core.profiles import Profile
from localdev.core.recipe import Fields, RecipeError, check_shape, choose_manifest, interpret, steps
from localdev.core.semver import Version, VersionError, satisfies
from localdev.core.variables import Paths, Scope, interpolate

JAVA_RECIPE_BYTES = 16_000
LITE_RECIPE_BYTES = 8_000
LITE_CHILDREN = 64
LITE_SERVICE_POLICY_BYTES = 4_096
LITE_SCRIPT_BYTES = 10_000
LITE_VARIABLE_BYTES = 256

_NAME = re.compile(r"[a-zA-Z0-9\-_.]{1,128}")
_VARIABLE = re.compile(r"\{([^}]*)\}?")
_LITE_VARIABLES = frozenset({
    "artifacts:path",
    "artifacts:decompressedPath",
    "work:path",
    "kernel:rootPath",
    "iot:thingName",
})  # fmt: skip
_TOP_KEYS = (
    "RecipeFormatVersion",
    "ComponentName",
    "ComponentVersion",
    "ComponentType",
    "ComponentDescription",
    "ComponentPublisher",
    "ComponentSource",
    "ComponentConfiguration",
    "ComponentDependencies",
    "Manifests",
    "Lifecycle",
)
_MANIFEST_KEYS = ("Platform", "Name", "Selections", "Lifecycle", "Artifacts")
_ARTIFACT_KEYS = ("Uri", "Unarchive", "Permission", "Digest", "Algorithm")
_DEPENDENCY_KEYS = ("VersionRequirement", "DependencyType")
_LIFECYCLE_KEYS = ("install", "run", "startup", "bootstrap", "shutdown", "recover", "uninstall", "Setenv")
_STEP_KEYS = ("Script", "Setenv", "Timeout", "RequiresPrivilege", "Skipif")
_REFUSED_STEPS = {
    "startup": "is broken on systemd older than 253",
    "shutdown": "is not run",
    "recover": "is not run",
    "bootstrap": "reboots the device even when it exits 0",
    "uninstall": "is not run",
}


def check_recipe(recipe: dict[str, Any], raw: bytes, profile: Profile | str) -> list[str]:
    """Why a core of that profile would refuse or misread a recipe; empty if it takes it.

    `recipe` is the parsed document, `raw` its bytes.
    """
    profile = Profile(profile)
    try:
        check_shape(recipe, profile)
    except RecipeError as error:
        return [str(error)]
    configuration = Fields(recipe, profile).inner("ComponentConfiguration").inner("DefaultConfiguration")
    return refusals(recipe, raw, profile) + policy.parse(configuration.get("accessControl"))[1]


def refusals(recipe: dict[str, Any], raw: bytes, profile: Profile) -> list[str]:
    """As `check_recipe`, without the policies that a core logs and ignores. RecipeError if it is malformed."""
    check_shape(recipe, profile)
    problems = [*_common(recipe, raw, profile)]
    if profile is Profile.LITE:
        problems += _lite(recipe, raw)
    return problems


def _common(recipe: dict[str, Any], raw: bytes, profile: Profile) -> Iterator[str]:
    top = Fields(recipe, profile)
    if len(raw) > JAVA_RECIPE_BYTES:
        yield f"the recipe has {len(raw)} bytes, at most {JAVA_RECIPE_BYTES}"
    if str(top.get("RecipeFormatVersion")) != "2020-01-25":
        yield 'RecipeFormatVersion must be "2020-01-25"'
    if not _NAME.fullmatch(str(top.get("ComponentName", ""))):
        yield f"ComponentName {top.get('ComponentName')!r} is no name of letters, digits and -_."
    if not top.get("Manifests"):
        yield "Manifests must be a list that is not empty"
        return
    try:
        found = interpret(recipe, profile)
        scope = Scope(found.name, str(found.version), Paths(Path("/")), "thing", found.defaults)
        steps(interpolate(found.lifecycle, scope, {}, Profile.JAVA, lambda problem: None), profile)
    except RecipeError as error:
        yield str(error)
        return
    for artifact in found.artifacts:
        if not artifact.uri:
            yield "an artifact has no Uri"
    for name, dependency in found.dependencies.items():
        try:
            satisfies(Version("1.0.0"), dependency.requirement)
        except VersionError as error:
            yield f"ComponentDependencies.{name}: {error}"


def _lite(recipe: dict[str, Any], raw: bytes) -> Iterator[str]:
    if len(raw) > LITE_RECIPE_BYTES:
        yield f"the recipe has {len(raw)} bytes, Lite reads at most {LITE_RECIPE_BYTES}"
    yield from _wrong_case(recipe, _TOP_KEYS, "")
    if not recipe.get("ComponentDescription"):
        yield "ComponentDescription is missing, which makes a malformed unit file"
    if recipe.get("ComponentType", "aws.greengrass.generic") != "aws.greengrass.generic":
        yield f"ComponentType {recipe['ComponentType']} is not supported by Lite"
    for name, properties in _items(recipe.get("ComponentDependencies")):
        yield from _wrong_case(properties, _DEPENDENCY_KEYS, f"ComponentDependencies.{name}.")
    configuration = recipe.get("ComponentConfiguration") or {}
    yield from _wrong_case(configuration, ("DefaultConfiguration",), "ComponentConfiguration.")
    defaults = configuration.get("DefaultConfiguration") or {}
    yield from _check_sizes(defaults, "")
    yield from check_policies(defaults.get("accessControl"))
    for index, manifest in enumerate(recipe.get("Manifests") or ()):
        yield from _check_manifest(manifest, f"Manifests[{index}].", defaults)
    if "Lifecycle" in recipe:
        yield from _check_lifecycle(_global_lifecycle(recipe), "Lifecycle.", defaults)


def _check_manifest(manifest: Mapping[str, Any], where: str, defaults: Mapping[str, Any]) -> Iterator[str]:
    yield from _wrong_case(manifest, _MANIFEST_KEYS, where)
    wanted = manifest.get("Platform") or {}
    if wanted.get("runtime") not in ("*", "aws_nucleus_lite"):
        yield f'{where}Platform.runtime must be "*", or Lite skips the manifest'
    if wanted.get("os") not in ("linux", "*", "all"):
        yield f"{where}Platform.os must be linux"
    for key, pattern in _items(wanted):
        if str(pattern).startswith("/"):
            yield f"{where}Platform.{key}: Lite has no regular expressions"
    if "Artifacts" not in manifest:
        yield f"{where}Artifacts is missing: Lite fails a cloud deployment without the key, an empty list passes"
    for number, artifact in enumerate(manifest.get("Artifacts") or ()):
        yield from _wrong_case(artifact, _ARTIFACT_KEYS, f"{where}Artifacts[{number}].")
    lifecycle = manifest.get("Lifecycle")
    if lifecycle:
        yield from _check_lifecycle(lifecycle, f"{where}Lifecycle.", defaults)


def _global_lifecycle(recipe: dict[str, Any]) -> Any:
    manifest = choose_manifest(Fields(recipe, Profile.LITE), Profile.LITE)
    if manifest is None or manifest.get("Lifecycle"):
        return {}
    return interpret(recipe, Profile.LITE).lifecycle


def _check_lifecycle(lifecycle: Any, where: str, defaults: Mapping[str, Any]) -> Iterator[str]:
    yield from _wrong_case(lifecycle, _LIFECYCLE_KEYS, where)
    for step, reason in _REFUSED_STEPS.items():
        if step in lifecycle:
            yield f"{where}{step} {reason} in Lite"
    if "install" in lifecycle and "run" not in lifecycle:
        yield f"{where}install without run hangs the deployment in Lite: add a run that exits 0"
    for name, text in _items(lifecycle.get("Setenv")):
        yield from _check_variables(str(text), f"{where}Setenv.{name}", defaults)
    for name in ("install", "run"):
        step = lifecycle.get(name)
        if isinstance(step, dict):
            yield from _wrong_case(step, _STEP_KEYS, f"{where}{name}.")
            if "{" in str(step.get("Timeout", "")):
                yield f"{where}{name}.Timeout: Lite takes a number, and no variable"
            if "Skipif" in step:
                yield f"{where}{name}.Skipif is ignored by Lite"
            for variable, text in _items(step.get("Setenv")):
                yield from _check_variables(str(text), f"{where}{name}.Setenv.{variable}", defaults)
        script = str(step.get("Script", "") if isinstance(step, dict) else step or "")
        if len(script.encode()) > LITE_SCRIPT_BYTES:
            yield f"{where}{name}: script of {len(script.encode())} bytes, at most {LITE_SCRIPT_BYTES}"
        yield from _check_variables(script, f"{where}{name}", defaults)


def _check_variables(text: str, where: str, defaults: Mapping[str, Any]) -> Iterator[str]:
    for match in _VARIABLE.finditer(text):
        content = match[1]
        if content in _LITE_VARIABLES and match[0].endswith("}"):
            continue
        namespace, _, pointer = content.partition(":")
        if len(content.encode()) > LITE_VARIABLE_BYTES:
            yield f"{where}: variable of {len(content.encode())} bytes, at most {LITE_VARIABLE_BYTES}"
        elif namespace == "configuration":
            if not _present(defaults, pointer):
                yield f"{where}: {match[0]} is not in DefaultConfiguration, Lite cuts the text there"
        elif content.count(":") == 2:
            yield f"{where}: {match[0]}: Lite refuses a dependency's variables"
        else:
            yield f"{where}: every {{ starts a variable in Lite, and {match[0]} is none"


def _present(document: Any, pointer: str) -> bool:
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(document, Mapping) or key not in document:
            return False
        document = document[key]
    return pointer.startswith("/")


def _check_sizes(node: Mapping[str, Any], where: str) -> Iterator[str]:
    if len(node) > LITE_CHILDREN:
        yield f"configuration {where or '/'}: {len(node)} children, at most {LITE_CHILDREN}"
    for key, value in node.items():
        path = f"{where}/{key}"
        if isinstance(value, Mapping):
            yield from _check_sizes(value, path)
        elif len(json.dumps(value, separators=(",", ":")).encode()) > LITE_LEAF_BYTES:
            size = len(json.dumps(value, separators=(",", ":")).encode())
            yield f"configuration {path}: a leaf of {size} bytes, at most {LITE_LEAF_BYTES} (a list is one leaf)"


def check_policies(access_control: Any) -> Iterator[str]:
    """What Lite refuses in an accessControl."""
    for service, policies in _items(access_control):
        size = len(json.dumps(policies, separators=(",", ":")).encode())
        if size > LITE_SERVICE_POLICY_BYTES:
            yield f"accessControl.{service}: {size} bytes, at most {LITE_SERVICE_POLICY_BYTES}"
        for policy_id, rules in _items(policies):
            resources = rules.get("resources") if isinstance(rules, Mapping) else None
            for resource in resources if isinstance(resources, list) else ():
                if "?" in str(resource):
                    yield f"accessControl.{service}.{policy_id}: {resource!r}: Lite fails on a ? in a policy"


def _wrong_case(mapping: Any, known: tuple[str, ...], where: str) -> Iterator[str]:
    for key, _ in _items(mapping):
        right = next((name for name in known if name.lower() == str(key).lower() and name != key), None)
        if right:
            yield f"{where}{key} must be written {right}: Lite's keys are case-sensitive"


def _items(mapping: Any) -> Iterator[tuple[str, Any]]:
    return iter(mapping.items() if isinstance(mapping, Mapping) else ())
