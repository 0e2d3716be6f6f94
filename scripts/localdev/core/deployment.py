"""Local deployments: from recipes and artifacts in folders to running components.

A deployment adds and removes root components; what they depend on follows. Configuration is merged by the rules of
KernelConfigResolver: reset, then recipe defaults into the gaps, then merge. A component restarts when its lifecycle
changed and is installed anew when its version, its install step, its user or its artifacts changed. Unlike the nucleus,
which keeps artifacts of the same version and size, changed files of the same version count as a change.
"""

import asyncio
import copy
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localdev.core.config_store import ConflictError, Tree, nulls_over_objects, plain
from localdev.core.deployment_model import (
    DEPLOYMENT_ERRORS,
    BrokenError,
    Deployment,
    DeploymentError,
    InvalidConfigurationError,
    Request,
)
from localdev.core.lifecycle import Component
from localdev.core.lite import check_policies
from localdev.core.profiles import Profile
from localdev.core.recipe import Recipe, RecipeError, Step, steps
from localdev.core.resolve import BUILTIN_VERSIONS, resolve
from localdev.core.rpc import dump
from localdev.core.semver import Version
from localdev.core.state import State as SavedState
from localdev.core.states import SETTLED, State
from localdev.core.users import User
from localdev.core.variables import Scope, interpolate

if TYPE_CHECKING:
    from localdev.core.engine import Engine


@dataclass
class _Plan:
    """What a component will be after the deployment."""

    recipe: Recipe
    steps: dict[str, Step]
    configuration: Tree
    artifacts_changed: bool


@dataclass
class _Before:
    """What was there, for a rollback."""

    roots: dict[str, str]
    run_with: dict[str, str]
    recipes: dict[str, Recipe]
    configurations: dict[str, Tree]


class Deployer:
    """Carries out deployments on an engine, one at a time."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._one_at_a_time = asyncio.Lock()
        self._started = time.monotonic()
        self._state_changed = False

    async def run(self, deployment: Deployment) -> None:
        """Carries out a deployment; its outcome is in `status` and `error`."""
        async with self._one_at_a_time:
            self._state_changed = False
            try:
                await self._until_next_poll()
                deployment.status = "IN_PROGRESS"
                self._engine.logs.system("INFO", "deployment-started", deploymentId=deployment.id)
                await self._apply(deployment)
            except DEPLOYMENT_ERRORS as error:
                self._fail(deployment, error)
            except asyncio.CancelledError:
                self._fail(deployment, DeploymentError("the deployment was given up"))
                raise
            except Exception as error:  # a fault of the core itself
                self._fail(deployment, DeploymentError(repr(error)))
                raise
            else:
                deployment.status, deployment.detailed = "SUCCEEDED", "SUCCESSFUL"
                self._engine.logs.system("INFO", "deployment-succeeded", deploymentId=deployment.id)
                self._engine.changed()

    async def restore(self, state: SavedState) -> None:
        """Starts what was deployed when the last core of this root ended, as the nucleus does: each is installed."""
        if not state.versions:
            return
        engine = self._engine
        running = {name: Version(version) for name, version in state.versions.items()}
        recipes = resolve({**state.roots, **engine.roots}, engine.packages, running)
        trees = {name: state.configurations.get(name, engine.store.tree(name)) for name in recipes}
        plans = await self._plan(recipes, trees, state.run_with)
        engine.roots, engine.run_with = {**state.roots, **engine.roots}, dict(state.run_with)
        new = plans.keys() - engine.components.keys()
        self._install(plans, new, new)
        for name in new:
            engine.components[name].is_restored = True
        engine.changed()

    async def _until_next_poll(self) -> None:
        interval = self._engine.settings.poll_seconds
        if interval > 0:
            await asyncio.sleep(interval - (time.monotonic() - self._started) % interval)

    def _fail(self, deployment: Deployment, error: Exception) -> None:
        kind = error if isinstance(error, DeploymentError) else DeploymentError
        deployment.error_stack, deployment.error_types = list(kind.stack), list(kind.types)
        deployment.error = str(error)
        if not self._state_changed:
            deployment.detailed = "FAILED_NO_STATE_CHANGE"
        elif deployment.detailed is None:
            deployment.detailed = "FAILED_ROLLBACK_NOT_REQUESTED"
        if deployment.status != "CANCELED":
            deployment.status = "FAILED"
        self._engine.logs.system("ERROR", "deployment-failed", deployment.error, deploymentId=deployment.id)
        self._engine.changed()

    async def _apply(self, deployment: Deployment) -> None:
        engine, request = self._engine, deployment.request
        await asyncio.to_thread(self._take_over, request)
        roots = {name: version for name, version in engine.roots.items() if name not in request.remove}
        roots |= request.merge
        running = {name: component.recipe.version for name, component in engine.components.items()}
        recipes = resolve(roots, engine.packages, running)
        for name in request.update_config:
            if name not in recipes:
                raise DeploymentError(f"configuration is given for {name}, which is not deployed")
        run_with = {**engine.run_with, **request.run_with}
        configurations = self._configurations(deployment, recipes)
        plans = await self._plan(recipes, configurations, run_with)
        await self._validate(deployment.id, plans)
        before = self._remember()
        self._state_changed = True
        try:
            waiting = {name for name in request.merge.keys() & engine.components.keys() if not self._settled(name)}
            await self._carry_out(plans, roots, run_with, waiting)
        except DeploymentError:
            if request.rollback:
                deployment.detailed = await self._roll_back(before)
            raise

    def _take_over(self, request: Request) -> None:
        for folder in (*request.recipe_dirs, *request.artifact_dirs):
            if not folder.is_dir():
                raise DeploymentError(f"{folder} is no folder")
        for folder in request.recipe_dirs:
            self._engine.packages.add_recipes(folder)
        for folder in request.artifact_dirs:
            self._engine.packages.add_artifacts(folder)

    def _owners(self, names: Mapping[str, object], run_with: Mapping[str, str]) -> dict[str, User | None]:
        """Whom each component will run as. DeploymentError if that is nobody of this machine."""
        try:
            return {name: self._engine.users.of(run_with.get(name)) for name in names}
        except (KeyError, ValueError) as error:
            raise DeploymentError(f"runWith names a user or group that does not exist: {error}") from error

    def _configurations(self, deployment: Deployment, recipes: Mapping[str, Recipe]) -> dict[str, Tree]:
        engine, update = self._engine, deployment.request.update_config
        trees = {}
        for name, recipe in recipes.items():
            change = update.get(name, {})
            try:
                trees[name] = engine.store.proposal(name, recipe.defaults, change, deployment.created)
            except ConflictError as error:
                raise InvalidConfigurationError(f"configuration of {name}: {error}") from error
            self._warn_of_nulls(name, change)
            if engine.profile is Profile.LITE:
                for problem in check_policies(plain(trees[name]).get("accessControl")):
                    raise InvalidConfigurationError(f"{name}: {problem}")
        return trees

    def _warn_of_nulls(self, name: str, change: Mapping[str, Any]) -> None:
        for path in nulls_over_objects(self._engine.store.tree(name), change.get("MERGE") or {}):
            self._engine.logs.system(
                "WARN",
                "null-over-object",
                f"a Java nucleus could not read its log of null in place of the object /{'/'.join(path)} at its next "
                "start, and stays down after three: RESET the path instead",
                serviceName=name,
            )

    async def _plan(
        self, recipes: Mapping[str, Recipe], configurations: Mapping[str, Tree], run_with: Mapping[str, str]
    ) -> dict[str, _Plan]:
        engine, owners = self._engine, self._owners(recipes, run_with)
        artifacts_changed = await asyncio.to_thread(
            lambda: {name: engine.packages.prepare(recipe, owners[name]) for name, recipe in recipes.items()}
        )
        scopes = {
            name: Scope(
                name, str(recipe.version), engine.paths, engine.settings.thing_name, plain(configurations[name])
            )
            for name, recipe in recipes.items()
        }
        plans = {}
        for name, recipe in recipes.items():
            lifecycle = interpolate(
                recipe.lifecycle,
                scopes[name],
                {dependency: scopes[dependency] for dependency in recipe.dependencies},
                engine.profile,
                lambda problem: engine.logs.system("ERROR", "variable", problem),
            )
            found = steps(lifecycle, engine.profile)
            if "bootstrap" in found:
                raise RecipeError(f"{name}: bootstrap steps are not supported by this stand-in")
            plans[name] = _Plan(recipe, found, configurations[name], artifacts_changed[name])
        return plans

    async def _validate(self, deployment_id: str, plans: Mapping[str, _Plan]) -> None:
        """Lets components that asked for it judge their new configuration; only one of the same version is asked."""
        engine = self._engine
        changed = {}
        for name, plan in plans.items():
            component, proposed = engine.components.get(name), plain(plan.configuration)
            kept = component and name not in BUILTIN_VERSIONS and component.recipe.version == plan.recipe.version
            if kept and dump(proposed) != dump(engine.store.snapshot(name)):
                changed[name] = proposed
        problem = await engine.updates.validate(deployment_id, changed, engine.settings.validation_seconds)
        if problem:
            raise InvalidConfigurationError(problem)

    def _remember(self) -> _Before:
        engine = self._engine
        return _Before(
            dict(engine.roots),
            dict(engine.run_with),
            {name: component.recipe for name, component in engine.components.items()},
            {name: copy.deepcopy(engine.store.tree(name)) for name in engine.components},
        )

    async def _carry_out(
        self,
        plans: Mapping[str, _Plan],
        roots: dict[str, str],
        run_with: dict[str, str],
        waiting: Set[str] = frozenset(),
    ) -> None:
        """`waiting`: components that are awaited although nothing of them changes."""
        engine = self._engine
        owners = self._owners(plans, run_with)
        restored = {name for name, component in engine.components.items() if component.is_restored}
        reinstall = {name for name, plan in plans.items() if self._must_reinstall(name, plan)}
        reinstall |= {name for name in plans.keys() & engine.components.keys() if owners[name] != engine.user(name)}
        restart = {name for name, plan in plans.items() if self._must_restart(name, plan)} | reinstall
        await engine.stop_components({*restart, *(engine.components.keys() - plans.keys())})
        engine.roots = roots
        engine.run_with = run_with
        self._install(plans, restart, reinstall)
        engine.changed()
        await self._wait_until_settled(restart | ((restored | waiting) & plans.keys()))

    async def _roll_back(self, before: _Before) -> str:
        """Brings back what was there; the answer is the deployment's detailed status."""
        self._engine.logs.system("INFO", "rollback", "bringing back what ran before")
        try:
            plans = await self._plan(before.recipes, before.configurations, before.run_with)
            await self._carry_out(plans, before.roots, before.run_with)
        except DEPLOYMENT_ERRORS as error:
            self._engine.logs.system("ERROR", "rollback", str(error))
            return "FAILED_UNABLE_TO_ROLLBACK"
        return "FAILED_ROLLBACK_COMPLETE"

    def _settled(self, name: str) -> bool:
        return self._engine.components[name].state in SETTLED

    def _must_reinstall(self, name: str, plan: _Plan) -> bool:
        component = self._engine.components.get(name)
        if component is None or component.state is State.BROKEN:
            return component is None or self._tries_again(name, plan, component)
        if component.is_restored and plan.recipe.numeric_install_timeout and self._engine.profile is Profile.JAVA:
            # The nucleus reads this number back from its disk as another type and takes that for a change.
            self._engine.logs.system(
                "INFO",
                "service-config-change",
                "Requesting reinstallation for component",
                configNode=f"services.{name}.lifecycle.install.Timeout",
                serviceName=name,
            )
            return True
        return (
            component.recipe.version != plan.recipe.version
            or component.steps.get("install") != plan.steps.get("install")
            or plan.artifacts_changed
        )

    def _tries_again(self, name: str, plan: _Plan, component: Component) -> bool:
        """Whether a BROKEN component starts: in the Java nucleus if anything of it changes, in Lite in any case."""
        return (
            self._engine.profile is Profile.LITE
            or plan.artifacts_changed
            or component.recipe.version != plan.recipe.version
            or component.steps != plan.steps
            or dump(plain(plan.configuration)) != dump(self._engine.store.snapshot(name))
        )

    def _must_restart(self, name: str, plan: _Plan) -> bool:
        component = self._engine.components.get(name)
        return component is None or component.steps != plan.steps

    def _install(self, plans: Mapping[str, _Plan], restart: set[str], reinstall: set[str]) -> None:
        engine = self._engine
        for name in engine.components.keys() - plans.keys():
            engine.forget(name)
        for name, plan in plans.items():
            engine.store.replace(name, plan.configuration)
            engine.load_policies(name)
            component = engine.components.get(name)
            if component is None or (component.recipe.version != plan.recipe.version):
                component = engine.components[name] = Component(plan.recipe, plan.steps, engine)
            component.recipe, component.steps, component.is_restored = plan.recipe, plan.steps, False
        for name in plans:
            engine.link(name)
        for name in plans:
            if name in restart:
                if name in BUILTIN_VERSIONS:
                    engine.start_builtin(name)
                else:
                    engine.components[name].start(reinstall=name in reinstall)

    async def _wait_until_settled(self, names: set[str]) -> None:
        """Waits until all run or have finished, and have done so for as long as the nucleus takes to look again."""
        components = [self._engine.components[name] for name in names]

        def broken() -> Component | None:
            return next((one for each in components for one in (each, *each.hindered_by) if one.state in _BROKEN), None)

        await self._engine.until(lambda: all(each.state in SETTLED for each in components) or broken() is not None)
        if components and self._engine.settings.settle_seconds and self._engine.profile is Profile.JAVA:
            await self._engine.until_or_timeout(lambda: broken() is not None, self._engine.settings.settle_seconds)
        culprit = broken()
        if culprit:
            tail = self._engine.logs.tail(culprit.name)
            raise BrokenError(f"{culprit.name} is BROKEN. The end of its log:\n{tail}")


_BROKEN = (State.BROKEN,)
