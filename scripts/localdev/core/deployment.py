"""Local deployments: from recipes and artifacts in folders to running components.

A deployment adds and removes root components; what they depend on follows. Configuration is merged by the rules of
KernelConfigResolver: reset, then recipe defaults into the gaps, then merge. A component restarts when its lifecycle
changed and is installed anew when its version, its install step or its artifacts changed. Unlike the nucleus, which
keeps artifacts of the same version and size, changed files of the same version count as a change, and every
deployment gives a BROKEN component another chance.
"""

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localdev.core.config_store import Tree, plain
from localdev.core.lifecycle import Component
from localdev.core.recipe import Recipe, RecipeError, Step, steps
from localdev.core.resolve import BUILTIN_VERSIONS, ResolutionError, resolve
from localdev.core.states import SETTLED, State
from localdev.core.users import User
from localdev.core.variables import Scope, interpolate

if TYPE_CHECKING:
    from localdev.core.engine import Engine


class DeploymentError(Exception):
    """A deployment failed; the text says why, with the end of the failing component's log."""


@dataclass(frozen=True)
class Request:
    """What a deployment is asked to do.

    `update_config`: {component: {"MERGE": {...}, "RESET": [pointers]}}; `run_with`: {component: USER[:GROUP]}.
    """

    recipe_dirs: list[Path] = field(default_factory=list)
    artifact_dirs: list[Path] = field(default_factory=list)
    merge: Mapping[str, str] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    update_config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run_with: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Deployment:
    """One deployment. `status`: QUEUED, IN_PROGRESS, SUCCEEDED or FAILED; `created` is epoch seconds."""

    request: Request
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: float = field(default_factory=time.time)
    status: str = "QUEUED"
    error: str | None = None


@dataclass
class _Plan:
    """What a component will be after the deployment."""

    recipe: Recipe
    steps: dict[str, Step]
    configuration: Tree
    artifacts_changed: bool


class Deployer:
    """Carries out deployments on an engine, one at a time."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._one_at_a_time = asyncio.Lock()

    async def run(self, deployment: Deployment) -> None:
        """Carries out a deployment; its outcome is in `status` and `error`."""
        async with self._one_at_a_time:
            deployment.status = "IN_PROGRESS"
            self._engine.logs.system("INFO", "deployment-started", deploymentId=deployment.id)
            try:
                await self._apply(deployment)
            except (DeploymentError, RecipeError, ResolutionError, OSError) as error:
                self._fail(deployment, str(error))
            except asyncio.CancelledError:
                self._fail(deployment, "the deployment was given up")
                raise
            except Exception as error:  # a fault of the core itself
                self._fail(deployment, repr(error))
                raise
            else:
                deployment.status = "SUCCEEDED"
                self._engine.logs.system("INFO", "deployment-succeeded", deploymentId=deployment.id)
                self._engine.announce()

    def _fail(self, deployment: Deployment, reason: str) -> None:
        deployment.error, deployment.status = reason, "FAILED"
        self._engine.logs.system("ERROR", "deployment-failed", reason, deploymentId=deployment.id)
        self._engine.announce()

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
        owners = self._owners(recipes, request.run_with)
        artifacts_changed = await asyncio.to_thread(
            lambda: {name: engine.packages.prepare(recipe, owners[name]) for name, recipe in recipes.items()}
        )
        plans = self._plan(deployment, recipes, artifacts_changed)
        await engine.validate_configuration(
            deployment.id, {name: plain(plan.configuration) for name, plan in plans.items()}
        )
        reinstall = {name for name, plan in plans.items() if self._must_reinstall(name, plan)}
        reinstall |= {name for name in plans.keys() & engine.components.keys() if owners[name] != engine.user(name)}
        restart = {name for name, plan in plans.items() if self._must_restart(name, plan)} | reinstall
        await engine.stop_components({*restart, *(engine.components.keys() - plans.keys())})
        engine.roots = roots
        engine.run_with |= request.run_with
        self._install(plans, restart, reinstall)
        await self._wait_until_settled(restart)

    def _owners(self, recipes: Mapping[str, Recipe], run_with: Mapping[str, str]) -> dict[str, User | None]:
        """Whom each component will run as. DeploymentError if that is nobody of this machine."""
        wanted = {**self._engine.run_with, **run_with}
        try:
            return {name: self._engine.users.of(wanted.get(name)) for name in recipes}
        except (KeyError, ValueError) as error:
            raise DeploymentError(f"runWith names a user or group that does not exist: {error}") from error

    def _take_over(self, request: Request) -> None:
        for folder in request.recipe_dirs:
            self._engine.packages.add_recipes(folder)
        for folder in request.artifact_dirs:
            self._engine.packages.add_artifacts(folder)

    def _plan(
        self, deployment: Deployment, recipes: Mapping[str, Recipe], artifacts_changed: Mapping[str, bool]
    ) -> dict[str, _Plan]:
        engine = self._engine
        configurations = {
            name: engine.store.proposal(
                name, recipe.defaults, deployment.request.update_config.get(name, {}), deployment.created
            )
            for name, recipe in recipes.items()
        }
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

    def _must_reinstall(self, name: str, plan: _Plan) -> bool:
        component = self._engine.components.get(name)
        return (
            component is None
            or component.recipe.version != plan.recipe.version
            or component.steps.get("install") != plan.steps.get("install")
            or plan.artifacts_changed
            or component.state is State.BROKEN
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
            component.recipe, component.steps = plan.recipe, plan.steps
            component.dependencies = [
                engine.components[dependency]
                for dependency, properties in plan.recipe.dependencies.items()
                if properties.hard
            ]
        for name in plans:
            if name in restart:
                if name in BUILTIN_VERSIONS:
                    engine.start_builtin(name)
                else:
                    engine.components[name].start(reinstall=name in reinstall)

    async def _wait_until_settled(self, names: set[str]) -> None:
        components = [self._engine.components[name] for name in names]
        await self._engine.until(
            lambda: (
                all(component.state in SETTLED for component in components)
                or any(component.state is State.BROKEN for component in components)
            )
        )
        for component in components:
            if component.state is State.BROKEN:
                raise DeploymentError(
                    f"{component.name} is BROKEN. The end of its log:\n{self._engine.logs.tail(component.name)}"
                )
