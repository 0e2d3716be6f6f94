"""Local deployments: from recipes and artifacts in folders to running components.

A deployment adds and removes root components; what they depend on follows. Configuration is merged by the rules of
KernelConfigResolver: reset, then recipe defaults into the gaps, then merge. A component restarts when its lifecycle
changed and is installed anew when its version, its install step, its user or its artifacts changed. Unlike the nucleus,
which keeps artifacts of the same version and size, changed files of the same version count as a change.
"""

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from localdev.core.config_store import Tree, plain
from localdev.core.deployment_model import (
    DEPLOYMENT_ERRORS,
    BrokenError,
    Deployment,
    DeploymentError,
    InvalidConfigurationError,
)
from localdev.core.lifecycle import Component
from localdev.core.planning import Plan, Planner
from localdev.core.profiles import Profile
from localdev.core.recipe import Recipe
from localdev.core.resolve import BUILTIN_VERSIONS, resolve
from localdev.core.rpc import dump
from localdev.core.saved import State as SavedState
from localdev.core.semver import Version
from localdev.core.state import CoreState
from localdev.core.states import SETTLED, State

# What components say against their new configurations: (deployment, by name, seconds) -> what is wrong.
Validate = Callable[[str, Mapping[str, Any], float], Awaitable[str | None]]


@dataclass
class _Before:
    """What was there, for a rollback."""

    roots: dict[str, str]
    run_with: dict[str, str]
    recipes: dict[str, Recipe]
    configurations: dict[str, Tree]


class Deployer:
    """Carries out deployments on a core, one at a time."""

    def __init__(self, core: CoreState, validate: Validate) -> None:
        self._core, self._asks = core, validate
        self._planner = Planner(core)
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
                self._core.logs.system("INFO", "deployment-started", deploymentId=deployment.id)
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
                self._core.logs.system("INFO", "deployment-succeeded", deploymentId=deployment.id)
                self._core.changed()

    async def restore(self, state: SavedState) -> None:
        """Starts what was deployed when the last core of this root ended, as the nucleus does: each is installed."""
        if not state.versions:
            return
        core = self._core
        running = {name: Version(version) for name, version in state.versions.items()}
        recipes = resolve({**state.roots, **core.roots}, core.packages, running)
        trees = {name: state.configurations.get(name, core.store.tree(name)) for name in recipes}
        plans = await self._planner.plan(recipes, trees, state.run_with)
        core.roots, core.run_with = {**state.roots, **core.roots}, dict(state.run_with)
        new = plans.keys() - core.components.keys()
        self._install(plans, new, new)
        for name in new:
            core.components[name].is_restored = True
        core.changed()

    async def _until_next_poll(self) -> None:
        interval = self._core.settings.poll_seconds
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
        self._core.logs.system("ERROR", "deployment-failed", deployment.error, deploymentId=deployment.id)
        self._core.changed()

    async def _apply(self, deployment: Deployment) -> None:
        core, request = self._core, deployment.request
        await asyncio.to_thread(self._planner.take_over, request)
        roots = {name: version for name, version in core.roots.items() if name not in request.remove}
        roots |= request.merge
        running = {name: component.recipe.version for name, component in core.components.items()}
        recipes = resolve(roots, core.packages, running)
        for name in request.update_config:
            if name not in recipes:
                raise DeploymentError(f"configuration is given for {name}, which is not deployed")
        run_with = {**core.run_with, **request.run_with}
        configurations = self._planner.configurations(deployment, recipes)
        plans = await self._planner.plan(recipes, configurations, run_with)
        await self._validate(deployment.id, plans)
        before = self._remember()
        self._state_changed = True
        try:
            waiting = {name for name in request.merge.keys() & core.components.keys() if not self._settled(name)}
            await self._carry_out(plans, roots, run_with, waiting)
        except DeploymentError:
            if request.rollback:
                deployment.detailed = await self._roll_back(before)
            raise

    async def _validate(self, deployment_id: str, plans: Mapping[str, Plan]) -> None:
        """Lets components that asked for it judge their new configuration; only one of the same version is asked."""
        core = self._core
        changed = {}
        for name, plan in plans.items():
            component, proposed = core.components.get(name), plain(plan.configuration)
            kept = component and name not in BUILTIN_VERSIONS and component.recipe.version == plan.recipe.version
            if kept and dump(proposed) != dump(core.store.snapshot(name)):
                changed[name] = proposed
        problem = await self._asks(deployment_id, changed, core.settings.validation_seconds)
        if problem:
            raise InvalidConfigurationError(problem)

    def _remember(self) -> _Before:
        core = self._core
        return _Before(
            dict(core.roots),
            dict(core.run_with),
            {name: component.recipe for name, component in core.components.items()},
            {name: copy.deepcopy(core.store.tree(name)) for name in core.components},
        )

    async def _carry_out(
        self,
        plans: Mapping[str, Plan],
        roots: dict[str, str],
        run_with: dict[str, str],
        waiting: Set[str] = frozenset(),
    ) -> None:
        """`waiting`: components that are awaited although nothing of them changes."""
        core = self._core
        owners = self._planner.owners(plans, run_with)
        restored = {name for name, component in core.components.items() if component.is_restored}
        reinstall = {name for name, plan in plans.items() if self._must_reinstall(name, plan)}
        reinstall |= {name for name in plans.keys() & core.components.keys() if owners[name] != core.user(name)}
        restart = {name for name, plan in plans.items() if self._must_restart(name, plan)} | reinstall
        await core.stop_components({*restart, *(core.components.keys() - plans.keys())})
        core.roots = roots
        core.run_with = run_with
        self._install(plans, restart, reinstall)
        core.changed()
        await self._wait_until_settled(restart | ((restored | waiting) & plans.keys()))

    async def _roll_back(self, before: _Before) -> str:
        """Brings back what was there; the answer is the deployment's detailed status."""
        self._core.logs.system("INFO", "rollback", "bringing back what ran before")
        try:
            plans = await self._planner.plan(before.recipes, before.configurations, before.run_with)
            await self._carry_out(plans, before.roots, before.run_with)
        except DEPLOYMENT_ERRORS as error:
            self._core.logs.system("ERROR", "rollback", str(error))
            return "FAILED_UNABLE_TO_ROLLBACK"
        return "FAILED_ROLLBACK_COMPLETE"

    def _settled(self, name: str) -> bool:
        return self._core.components[name].state in SETTLED

    def _must_reinstall(self, name: str, plan: Plan) -> bool:
        component = self._core.components.get(name)
        if component is None or component.state is State.BROKEN:
            return component is None or self._tries_again(name, plan, component)
        if component.is_restored and plan.recipe.numeric_install_timeout and self._core.profile is Profile.JAVA:
            # The nucleus reads this number back from its disk as another type and takes that for a change.
            self._core.logs.system(
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

    def _tries_again(self, name: str, plan: Plan, component: Component) -> bool:
        """Whether a BROKEN component starts: in the Java nucleus if anything of it changes, in Lite in any case."""
        return (
            self._core.profile is Profile.LITE
            or plan.artifacts_changed
            or component.recipe.version != plan.recipe.version
            or component.steps != plan.steps
            or dump(plain(plan.configuration)) != dump(self._core.store.snapshot(name))
        )

    def _must_restart(self, name: str, plan: Plan) -> bool:
        component = self._core.components.get(name)
        return component is None or component.steps != plan.steps

    def _install(self, plans: Mapping[str, Plan], restart: set[str], reinstall: set[str]) -> None:
        core = self._core
        for name in core.components.keys() - plans.keys():
            core.forget(name)
        for name, plan in plans.items():
            core.store.replace(name, plan.configuration)
            core.load_policies(name)
            component = core.components.get(name)
            if component is None or (component.recipe.version != plan.recipe.version):
                component = core.components[name] = Component(plan.recipe, plan.steps, core)
            component.recipe, component.steps, component.is_restored = plan.recipe, plan.steps, False
        for name in plans:
            core.link(name)
        for name in plans:
            if name in restart:
                if name in BUILTIN_VERSIONS:
                    core.start_builtin(name)
                else:
                    core.components[name].start(reinstall=name in reinstall)

    async def _wait_until_settled(self, names: set[str]) -> None:
        """Waits until all run or have finished, and have done so for as long as the nucleus takes to look again."""
        components = [self._core.components[name] for name in names]

        def broken() -> Component | None:
            return next((one for each in components for one in (each, *each.hindered_by) if one.state in _BROKEN), None)

        await self._core.until(lambda: all(each.state in SETTLED for each in components) or broken() is not None)
        if components and self._core.settings.settle_seconds and self._core.profile is Profile.JAVA:
            await self._core.until_or_timeout(lambda: broken() is not None, self._core.settings.settle_seconds)
        culprit = broken()
        if culprit:
            tail = self._core.logs.tail(culprit.name)
            raise BrokenError(f"{culprit.name} is BROKEN. The end of its log:\n{tail}")


_BROKEN = (State.BROKEN,)
