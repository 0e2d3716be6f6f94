"""The core itself: what is deployed, who may do what, and the services that components use."""

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from localdev.core import nucleus, state, tes
from localdev.core.config_store import ConfigStore
from localdev.core.deployment import Deployer
from localdev.core.deployment_model import DEPLOYMENT_ERRORS, Deployment, Request
from localdev.core.lifecycle import Component
from localdev.core.logs import FILE_BYTES, TOTAL_BYTES, LogFormat, Logs, Record
from localdev.core.mqtt import IotCore
from localdev.core.operations.components import Components
from localdev.core.operations.configuration import Configuration
from localdev.core.operations.iotcore import IotCoreProxy
from localdev.core.operations.others import Others
from localdev.core.operations.pubsub import PubSub
from localdev.core.operations.secrets import Secrets, load_secrets
from localdev.core.operations.updates import Updates
from localdev.core.packages import PackageStore
from localdev.core.policy import Authorizer
from localdev.core.process import end_leftovers
from localdev.core.profiles import CLI, Profile
from localdev.core.recipe import RecipeError, Step
from localdev.core.resolve import BUILTIN_VERSIONS, resolve
from localdev.core.server import Handler, Server
from localdev.core.states import State
from localdev.core.users import User, Users, give
from localdev.core.variables import Paths

MAX_SOCKET_PATH_BYTES = 107
MAX_DEPLOYMENTS = 100
NUCLEUS = {Profile.JAVA: "aws.greengrass.Nucleus", Profile.LITE: "aws.greengrass.NucleusLite"}


class CoreError(Exception):
    """The core cannot start or cannot do what it was asked for."""


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


class Engine:
    """A running core. Made, used and closed on one event loop's thread."""

    def __init__(self, settings: Settings) -> None:
        known_secrets = load_secrets(settings.secrets, settings.region)
        self.settings = settings
        self.profile = settings.profile
        self.root = settings.root.resolve()
        self.paths = Paths(self.root)
        for folder in ("packages/artifacts", "packages/artifacts-unarchived", "work"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for folder in ("packages/recipes", "config"):
            (self.root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(self.root)
        self.users = Users(self.profile, self.root, settings.user)
        self.run_with: dict[str, str] = {}
        self.logs = Logs(self.root / "logs", settings.log_format, settings.log_file_bytes, settings.log_total_bytes)
        self.store = ConfigStore(self.profile)
        self.packages = PackageStore(self.paths, self.profile)
        self.components: dict[str, Component] = {}
        self.roots: dict[str, str] = {}
        self.deployments: dict[str, Deployment] = {}
        self._deploying: dict[str, asyncio.Task[None]] = {}
        self._services = contextlib.AsyncExitStack()
        self._principals: dict[str, str] = {}
        self._closing = False
        self._tokens: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._socket_folder: Path | None = None
        self.socket = self._socket_path()
        self.authorizer = Authorizer(lambda who, problem: self.logs.system("ERROR", "policy", problem, component=who))
        self.pubsub = PubSub(self.authorizer, self.profile)
        self.updates = Updates()
        self._deployer = Deployer(self)
        self.iot_core = IotCore(settings.mqtt_url, settings.thing_name, self.profile)
        self._tes = tes.TokenExchange(settings.credentials, lambda token: token in self._principals)
        self._server = Server(self.profile, self._handlers(known_secrets), self._principals.get, self._complain)

    def _handlers(self, known_secrets: Mapping[str, dict[str, Any]]) -> dict[str, Handler]:
        return {
            **self.pubsub.handlers(),
            **IotCoreProxy(self.authorizer, self.iot_core, self.profile).handlers(),
            **Configuration(self.store, self.profile, self._configuration_written, self.describe).handlers(),
            **Secrets(self.authorizer, known_secrets, self.components.__contains__).handlers(),
            **Components(self).handlers(),
            **self.updates.handlers(),
            **Others(self.authorizer, self._principals.__contains__).handlers(),
        }

    def _socket_path(self) -> Path:
        path = self.root / ("gg-ipc.socket" if self.profile is Profile.LITE else "ipc.socket")
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="greengrass-"))
            self._socket_folder.chmod(0o755)
            path = self._socket_folder / path.name
        path.unlink(missing_ok=True)
        return path

    async def start(self) -> None:
        """Opens the socket and the services, with the nucleus and the CLI deployed. Then, too, `close` is due."""
        await self._tes.start()
        self._services.push_async_callback(self._tes.stop)
        self.iot_core.start()
        self._services.push_async_callback(self.iot_core.stop)
        left = await end_leftovers(self.socket, self.root / "work")
        if left:
            self.logs.system("WARN", "leftovers", f"ended {left} processes of a core that was killed")
        await self._server.start(self.socket)
        self._services.push_async_callback(self._server.stop)
        try:
            self.packages.add_recipes(self.root / "packages" / "recipes")
        except RecipeError as error:
            self.logs.system("WARN", "recipes", f"stored recipes are not all usable: {error}")
        self.roots = {name: BUILTIN_VERSIONS[name] for name in (NUCLEUS[self.profile], CLI)}
        for name, recipe in resolve(self.roots, self.packages, {}).items():
            self.components[name] = Component(recipe, {}, self)
            self.store.replace(name, self.store.proposal(name, self._own_configuration(name), {}, 1.0))
            self.start_builtin(name)
        self.logs.system("INFO", "users", self.users.note)
        self.logs.system("INFO", "started", "stand-in for development, never for production", profile=self.profile)
        try:
            await self._deployer.restore(state.load(self._state_file, self.profile))
        except (state.StateError, *DEPLOYMENT_ERRORS) as error:
            self.logs.system("ERROR", "restore", f"what was deployed before could not be started: {error}")

    def _own_configuration(self, name: str) -> dict[str, Any]:
        if name != NUCLEUS[self.profile]:
            return {}
        default = self.users.default
        user = {"posixUser": str(default)} if default else {}
        return nucleus.configuration(self.profile, self.settings.region, self.settings.poll_seconds, user)

    @property
    def _state_file(self) -> Path:
        return self.root / "config" / "state.json"

    def changed(self) -> None:
        """Keeps what is deployed and how it is configured, and wakes everyone who waits in `until`."""
        if not self._closing:
            names = self.components.keys() - {NUCLEUS[self.profile], CLI}
            versions = {name: str(self.components[name].recipe.version) for name in names}
            trees = {name: self.store.tree(name) for name in names}
            state.save(self._state_file, state.State(self.profile, self.roots, versions, self.run_with, trees))
        self.announce()

    def _configuration_written(self, name: str) -> None:
        """A component has changed its own configuration."""
        self.load_policies(name)
        self.changed()

    def describe(self) -> dict[str, Any]:
        """What scripts/core asks of its core beyond the words of greengrass-cli."""
        waiting = {name: component.waits_for for name, component in self.components.items() if component.waits_for}
        return {
            "profile": self.profile.value,
            "thing": self.settings.thing_name,
            "users": self.users.note,
            "iot_core": self.settings.mqtt_url or "",
            "online": self.iot_core.online,
            "waiting": waiting,
            "states": {name: component.state.value for name, component in self.components.items()},
        }

    async def close(self) -> None:
        """Stops every component and service; on return no process and no socket is left."""
        self._closing = True  # what is stopped now was deployed, and will be again
        for deployment_id in list(self._deploying):
            await self.give_up(deployment_id)
        await self.stop_components(set(self.components))
        await self._services.aclose()
        self.socket.unlink(missing_ok=True)
        if self._socket_folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
        self.logs.close()
        self._lock.close()

    def deploy(self, request: Request) -> Deployment:
        """Begins a deployment; it is queued behind those under way."""
        deployment = Deployment(request)
        self.deployments[deployment.id] = deployment
        for forgotten in list(self.deployments)[:-MAX_DEPLOYMENTS]:
            del self.deployments[forgotten]
        task = asyncio.create_task(self._deployer.run(deployment), name=f"deployment {deployment.id}")
        self._deploying[deployment.id] = task
        task.add_done_callback(lambda task: self._deployment_ended(deployment.id, task))
        return deployment

    async def give_up(self, deployment_id: str) -> None:
        """Ends a deployment that is queued or under way; what it has changed stays."""
        task = self._deploying.get(deployment_id)
        if task:
            task.cancel()
            await asyncio.wait({task})

    def cancel(self, deployment_id: str) -> bool:
        """Asks a deployment to end; false if it has."""
        deployment = self.deployments[deployment_id]
        if deployment.ended:
            return False
        deployment.status = "CANCELED"
        self._deploying[deployment_id].cancel()
        return True

    def _deployment_ended(self, deployment_id: str, task: asyncio.Task[None]) -> None:
        del self._deploying[deployment_id]
        failure = None if task.cancelled() else task.exception()
        if failure:
            self.logs.system("ERROR", "deployment-failed", f"the core failed: {failure!r}")

    def token(self, name: str) -> str:
        """The IPC token of a component, which lasts as long as this core runs."""
        if name not in self._tokens:
            self._tokens[name] = token = secrets.token_hex(8).upper()
            self._principals[token] = name
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
            environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = self._tes.url
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

    def _complain(self, problem: str) -> None:
        self.logs.system("WARN", "ipc", problem)


def _lock(root: Path) -> IO[bytes]:
    """An open file that holds the root's lock. CoreError if another core runs there."""
    file = (root / "core.lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise CoreError(f"a core already runs in {root}") from error
    return file
