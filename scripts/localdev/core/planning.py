"""From a request to what each component will be: recipes, owners, configurations, artifacts and steps."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localdev.core.config_store import ConflictError, Tree, nulls_over_objects, plain
from localdev.core.deployment_model import Deployment, DeploymentError, InvalidConfigurationError, Request
from localdev.core.lite import check_policies
from localdev.core.profiles import Profile
from localdev.core.recipe import Recipe, RecipeError, Step, steps
from localdev.core.state import CoreState
from localdev.core.users import User
from localdev.core.variables import Scope, interpolate


@dataclass
class Plan:
    """What a component will be after the deployment."""

    recipe: Recipe
    steps: dict[str, Step]
    configuration: Tree
    artifacts_changed: bool


class Planner:
    """Changes nothing that runs; recipes and artifacts are taken over into the core's store."""

    def __init__(self, core: CoreState) -> None:
        self._core = core

    def take_over(self, request: Request) -> None:
        for folder in (*request.recipe_dirs, *request.artifact_dirs):
            if not folder.is_dir():
                raise DeploymentError(f"{folder} is no folder")
        for folder in request.recipe_dirs:
            self._core.packages.add_recipes(folder)
        for folder in request.artifact_dirs:
            self._core.packages.add_artifacts(folder)

    def owners(self, names: Mapping[str, object], run_with: Mapping[str, str]) -> dict[str, User | None]:
        """Whom each component will run as. DeploymentError if that is nobody of this machine."""
        try:
            return {name: self._core.users.of(run_with.get(name)) for name in names}
        except (KeyError, ValueError) as error:
            raise DeploymentError(f"runWith names a user or group that does not exist: {error}") from error

    def configurations(self, deployment: Deployment, recipes: Mapping[str, Recipe]) -> dict[str, Tree]:
        core, update = self._core, deployment.request.update_config
        trees = {}
        for name, recipe in recipes.items():
            change = update.get(name, {})
            try:
                trees[name] = core.store.proposal(name, recipe.defaults, change, deployment.created)
            except ConflictError as error:
                raise InvalidConfigurationError(f"configuration of {name}: {error}") from error
            self._warn_of_nulls(name, change)
            if core.profile is Profile.LITE:
                for problem in check_policies(plain(trees[name]).get("accessControl")):
                    raise InvalidConfigurationError(f"{name}: {problem}")
        return trees

    def _warn_of_nulls(self, name: str, change: Mapping[str, Any]) -> None:
        for path in nulls_over_objects(self._core.store.tree(name), change.get("MERGE") or {}):
            self._core.logs.system(
                "WARN",
                "null-over-object",
                f"a Java nucleus could not read its log of null in place of the object /{'/'.join(path)} at its next "
                "start, and stays down after three: RESET the path instead",
                serviceName=name,
            )

    async def plan(
        self, recipes: Mapping[str, Recipe], configurations: Mapping[str, Tree], run_with: Mapping[str, str]
    ) -> dict[str, Plan]:
        core, owners = self._core, self.owners(recipes, run_with)
        artifacts_changed = await asyncio.to_thread(
            lambda: {name: core.packages.prepare(recipe, owners[name]) for name, recipe in recipes.items()}
        )
        scopes = {
            name: Scope(name, str(recipe.version), core.paths, core.settings.thing_name, plain(configurations[name]))
            for name, recipe in recipes.items()
        }
        plans = {}
        for name, recipe in recipes.items():
            lifecycle = interpolate(
                recipe.lifecycle,
                scopes[name],
                {dependency: scopes[dependency] for dependency in recipe.dependencies},
                core.profile,
                lambda problem: core.logs.system("ERROR", "variable", problem),
            )
            found = steps(lifecycle, core.profile)
            if "bootstrap" in found:
                raise RecipeError(f"{name}: bootstrap steps are not supported by this stand-in")
            plans[name] = Plan(recipe, found, configurations[name], artifacts_changed[name])
        return plans
