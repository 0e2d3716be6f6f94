"""Which components at which versions a deployment consists of."""

from collections import defaultdict, deque
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from localdev.core.packages import PackageStore
from localdev.core.recipe import Recipe
from localdev.core.semver import Version, VersionError, satisfies

BUILTIN_VERSIONS = {
    "aws.greengrass.Nucleus": "2.18.0",
    "aws.greengrass.NucleusLite": "2.6.0",
    "aws.greengrass.Cli": "2.18.0",
    "aws.greengrass.TokenExchangeService": "2.0.3",
    "aws.greengrass.SecretManager": "2.2.6",
    "aws.greengrass.LogManager": "2.3.12",
    "aws.greengrass.ShadowManager": "2.3.13",
    "aws.greengrass.StreamManager": "2.3.0",
}
"""AWS components that the stand-in provides itself, or whose place it keeps so that dependencies hold."""

_MAX_CHOICES = 1_000


class ResolutionError(Exception):
    """No set of known versions satisfies the deployment."""


def resolve(roots: Mapping[str, str], store: PackageStore, running: Mapping[str, Version]) -> dict[str, Recipe]:
    """The recipe of every component needed, in an order in which dependencies come first.

    A running version that satisfies is kept, else the highest known one is taken. ResolutionError if none does.
    """
    needs: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name, version in roots.items():
        # Of its own components the stand-in has one version each.
        needs[name]["the deployment"] = "*" if name in BUILTIN_VERSIONS else f"={version}"
    chosen: dict[str, Recipe] = {}
    pending = deque(roots)
    choices = 0
    while pending:
        choices += 1
        if choices > _MAX_CHOICES:
            raise ResolutionError("the version requirements contradict each other")
        name = pending.popleft()
        recipe = _choose(name, needs[name], store, running)
        if chosen.get(name) == recipe:
            continue
        for requirers in needs.values():
            requirers.pop(name, None)
        chosen[name] = recipe
        for dependency, properties in recipe.dependencies.items():
            needs[dependency][name] = properties.requirement
            pending.append(dependency)
    return {name: chosen[name] for name in _ordered(chosen, roots)}


def _choose(name: str, needs: Mapping[str, str], store: PackageStore, running: Mapping[str, Version]) -> Recipe:
    requirements = list(needs.values())
    wanted = ", ".join(f"{requirement} ({requirer})" for requirer, requirement in needs.items())
    try:
        if name in BUILTIN_VERSIONS:
            version = Version(BUILTIN_VERSIONS[name])
            if all(satisfies(version, requirement) for requirement in requirements):
                return Recipe(name, version, {}, {}, [])
            raise ResolutionError(f"{name} is provided as {version}, needed: {wanted}")
        recipe = None
        if name in running:
            recipe = store.find(name, [*requirements, f"={running[name]}"])
        recipe = recipe or store.find(name, requirements)
    except VersionError as error:
        raise ResolutionError(f"{name}: {error}") from error
    if recipe is None:
        known = ", ".join(store.versions(name)) or "none"
        raise ResolutionError(f"no version of {name} satisfies {wanted}; known: {known}")
    return recipe


def _ordered(chosen: Mapping[str, Recipe], roots: Mapping[str, str]) -> list[str]:
    """The components reachable from the roots, dependencies first."""
    reachable: set[str] = set()
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name not in reachable:
            reachable.add(name)
            pending += chosen[name].dependencies
    try:
        graph = {name: chosen[name].dependencies for name in sorted(reachable)}
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise ResolutionError(f"dependencies form a circle: {' -> '.join(error.args[1])}") from error
