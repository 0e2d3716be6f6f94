"""What a core is made of while it runs: what is deployed, who may do what, and what components are told of it.

Everything that acts (deployments, operations, components) gets this, and nothing of it acts by itself.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localdev.core import saved, tes
from localdev.core.config_store import ConfigStore
from localdev.core.lifecycle import Component
from localdev.core.logs import FILE_BYTES, TOTAL_BYTES, LogFormat, Logs, Record
from localdev.core.packages import PackageStore
from localdev.core.policy import Authorizer
from localdev.core.profiles import CLI, Profile
from localdev.core.recipe import Step
from localdev.core.resolve import BUILTIN_VERSIONS
from localdev.core.states import State
from localdev.core.users import User, Users, give
from localdev.core.variables import Paths

NUCLEUS = {Profile.JAVA: "aws.greengrass.Nucleus", Profile.LITE: "aws.greengrass.NucleusLite"}


@dataclass(frozen=True)
class Settings:
    """How a core is set up. `env` is added to every component's environment."""

    root: Path
    profile: Profile = Profile.JAVA
    thing_name: str = "laptop"
    region: str = "us-east-1"
    mqtt_url: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Any] | Path | None = None
    credentials: Mapping[str, str] | None = None
    log_format: LogFormat = "TEXT"
    log_file_bytes: int = FILE_BYTES
    log_total_bytes: int = TOTAL_BYTES
    user: str | None = None  # USER[:GROUP] that components run as; None: ggc_user, else nobody
    poll_seconds: float = 0.0  # how often the core looks for a new local deployment: 15 on a device
    settle_seconds: float = 0.0  # after which it looks again whether what it started still runs: 1 on a device
    validation_seconds: float = 20.0  # for a component's verdict on its new configuration


class CoreState:
    """For one event loop's thread. `settings.root` is there, and nobody else's."""

    def __init__(self, settings: Settings, socket: Path) -> None:
        self.settings, self.socket = settings, socket
        self.profile = settings.profile
        self.root = settings.root.resolve()
        self.paths = Paths(self.root)
        self.file = self.root / "config" / "state.json"
        self.users = Users(self.profile, self.root, settings.user)
        self.run_with: dict[str, str] = {}
        self.logs = Logs(self.root / "logs", settings.log_format, settings.log_file_bytes, settings.log_total_bytes)
        self.store = ConfigStore(self.profile)
        self.packages = PackageStore(self.paths, self.profile)
        self.components: dict[str, Component] = {}
        self.roots: dict[str, str] = {}
        self.authorizer = Authorizer(lambda who, problem: self.logs.system("ERROR", "policy", problem, component=who))
        self.principals: dict[str, str] = {}  # components by their tokens
        self.credentials_url = ""
        self.closing = False  # what is stopped now was deployed, and will be again
        self._tokens: dict[str, str] = {}
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Keeps what is deployed and how it is configured, and wakes everyone who waits in `until`."""
        if not self.closing:
            names = self.components.keys() - {NUCLEUS[self.profile], CLI}
            versions = {name: str(self.components[name].recipe.version) for name in names}
            trees = {name: self.store.tree(name) for name in names}
            saved.save(self.file, saved.State(self.profile, self.roots, versions, self.run_with, trees))
        self.announce()

    def token(self, name: str) -> str:
        """The IPC token of a component, which lasts as long as this core runs."""
        if name not in self._tokens:
            self._tokens[name] = token = secrets.token_hex(8).upper()
            self.principals[token] = name
        return self._tokens[name]

    def add_principal(self, name: str, access_control: Mapping[str, Any]) -> str:
        """Lets a client act as a component that has no recipe; the answer is its token."""
        self.store.replace(name, self.store.proposal(name, {"accessControl": access_control}, {}, 1.0))
        self.load_policies(name)
        return self.token(name)

    def load_policies(self, name: str) -> None:
        """Takes the policies from a component's configuration as it is now."""
        self.authorizer.load(name, self.store.snapshot(name).get("accessControl"))

    def forget(self, name: str) -> None:
        """Drops a component that is stopped and removed."""
        del self.components[name]
        self.run_with.pop(name, None)
        self.store.remove(name)
        self.authorizer.forget(name)

    def link(self, name: str) -> None:
        """Tells a component of the components that it depends on."""
        component = self.components[name]
        component.dependencies = [
            self.components[dependency]
            for dependency, properties in component.recipe.dependencies.items()
            if properties.hard
        ]

    def start_builtin(self, name: str) -> None:
        """Marks a component as running that the stand-in provides itself; the Java nucleus says FINISHED of itself."""
        component = self.components[name]
        ended = name == "aws.greengrass.Nucleus"
        before, component.state = component.state, State.FINISHED if ended else State.RUNNING
        self.state_changed(component, before)

    async def stop_components(self, names: set[str]) -> None:
        """Stops components, those that depend on others first."""
        stopped: dict[str, asyncio.Task[None]] = {}

        async def stop(component: Component) -> None:
            dependers = [other.name for other in self.components.values() if component in other.dependencies]
            waiting = [stopped[name] for name in dependers if name in stopped]
            if waiting:
                await asyncio.wait(waiting)
            await component.stop()

        for name in names & self.components.keys():
            stopped[name] = asyncio.create_task(stop(self.components[name]))
        await asyncio.gather(*stopped.values())

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Waits until a change of state or of a deployment makes `predicate` true."""
        while not predicate():
            await self._changed.wait()

    async def until_or_timeout(self, predicate: Callable[[], bool], seconds: float) -> None:
        """As `until`, but for some seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.until(predicate)

    def announce(self) -> None:
        """Wakes everyone who waits in `until`."""
        self._changed.set()
        self._changed = asyncio.Event()

    def user(self, name: str) -> User | None:
        """Whom a component runs as; None for the core's own user."""
        return self.users.of(self.run_with.get(name))

    def launch(self, name: str, step: Step) -> tuple[list[str], dict[str, str]]:
        """The command that runs a component's step, and its environment."""
        user = self.user(name)
        environment = self.users.environment(self._environment(name), step.setenv, user, privileged=step.privileged)
        return self.users.command(step.script, user, privileged=step.privileged), environment

    def _environment(self, name: str) -> dict[str, str]:
        """Environment of a component's processes: the core's own, and what the nucleus sets."""
        token = self.token(name)
        region = self.settings.region
        # A component sees its own modules and those of its environment alone.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {
            "SVCUID": token,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": token,
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(self.socket),
            "AWS_IOT_THING_NAME": self.settings.thing_name,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "GGC_VERSION": BUILTIN_VERSIONS[NUCLEUS[self.profile]],
            "GG_ROOT_CA_PATH": "",
            "EDGEML_PRIVATE": str(self.paths.root / "private"),  # where LogShipper keeps what is root's alone
        }
        if self.profile is Profile.JAVA:
            environment |= {
                "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH": str(self.socket),
                "AWS_GG_FIPS_MODE": "false",
                "AWS_USE_FIPS_ENDPOINT": "false",
            }
        if self._gets_credentials(name):
            environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = self.credentials_url
        return environment | dict(self.settings.env)

    def _gets_credentials(self, name: str) -> bool:
        if self.profile is Profile.LITE:
            return tes.COMPONENT in self.components[name].recipe.dependencies
        return tes.COMPONENT in self.components

    def work(self, name: str) -> Path:
        """The component's working directory, which exists."""
        folder = self.paths.work(name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        give(folder, self.user(name))
        return folder

    def log(self, name: str, record: Record) -> None:
        """Appends to a component's log."""
        self.logs.write(name, record)

    def state_changed(self, component: Component, before: State) -> None:
        """Logs a change of state and tells who depends on the component."""
        self.logs.system(
            "INFO",
            "service-set-state",
            serviceName=component.name,
            currentState=before.value,
            newState=component.state.value,
        )
        for other in self.components.values():
            if component in other.dependencies:
                other.dependency_changed(component)
        self.announce()
