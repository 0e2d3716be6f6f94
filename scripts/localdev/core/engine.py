"""The core itself: its parts put together, started and ended. What they share is a CoreState."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from localdev.core import nucleus, saved, tes
from localdev.core.deployment import Deployer
from localdev.core.deployment_model import DEPLOYMENT_ERRORS
from localdev.core.deployments import Deployments
from localdev.core.lifecycle import Component
from localdev.core.mqtt import IotCore
from localdev.core.operations.components import Components
from localdev.core.operations.configuration import Configuration
from localdev.core.operations.iotcore import IotCoreProxy
from localdev.core.operations.others import Others
from localdev.core.operations.pubsub import PubSub
from localdev.core.operations.secrets import Secrets, load_secrets
from localdev.core.operations.updates import Updates
from localdev.core.process import end_leftovers
from localdev.core.profiles import CLI, Profile
from localdev.core.recipe import RecipeError
from localdev.core.resolve import BUILTIN_VERSIONS, resolve
from localdev.core.server import Handler, Server
from localdev.core.state import NUCLEUS, CoreState, Settings

MAX_SOCKET_PATH_BYTES = 107


class CoreError(Exception):
    """The core cannot start or cannot do what it was asked for."""


class Engine:
    """A running core. Made beside an event loop, for it reads folders and tries sudo; used and closed on that loop."""

    def __init__(self, settings: Settings) -> None:
        known_secrets = load_secrets(settings.secrets, settings.region)
        root = settings.root.resolve()
        _make_folders(root)
        self._lock = _lock(root)
        self._services = contextlib.AsyncExitStack()
        self._socket_folder: Path | None = None
        core = self.state = CoreState(settings, self._socket_path(root, settings.profile))
        self.pubsub = PubSub(core.authorizer, core.profile)
        self.iot_core = IotCore(settings.mqtt_url, settings.thing_name, core.profile)
        self._updates = Updates()
        self._deployer = Deployer(core, self._updates.validate)
        self.deployments = Deployments(core, self._deployer)
        self._tes = tes.TokenExchange(settings.credentials, core.principals.__contains__)
        self._server = Server(core.profile, self._handlers(known_secrets), core.principals.get, self._complain)

    def _handlers(self, known_secrets: Mapping[str, dict[str, Any]]) -> dict[str, Handler]:
        core = self.state
        return {
            **self.pubsub.handlers(),
            **IotCoreProxy(core.authorizer, self.iot_core, core.profile).handlers(),
            **Configuration(core.store, core.profile, self._configuration_written, self.describe).handlers(),
            **Secrets(core.authorizer, known_secrets, core.components.__contains__).handlers(),
            **Components(core, self.deployments).handlers(),
            **self._updates.handlers(),
            **Others(core.authorizer, core.principals.__contains__).handlers(),
        }

    def _socket_path(self, root: Path, profile: Profile) -> Path:
        path = root / ("gg-ipc.socket" if profile is Profile.LITE else "ipc.socket")
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="greengrass-"))
            self._socket_folder.chmod(0o755)
            path = self._socket_folder / path.name
        path.unlink(missing_ok=True)
        return path

    async def start(self) -> None:
        """Opens the socket and the services, with the nucleus and the CLI deployed. Then, too, `close` is due."""
        core = self.state
        await self._tes.start()
        self._services.push_async_callback(self._tes.stop)
        core.credentials_url = self._tes.url
        self.iot_core.start()
        self._services.push_async_callback(self.iot_core.stop)
        left = await end_leftovers(core.socket, core.root / "work")
        if left:
            core.logs.system("WARN", "leftovers", f"ended {left} processes of a core that was killed")
        try:
            await asyncio.to_thread(core.packages.add_recipes, core.root / "packages" / "recipes")
        except RecipeError as error:
            core.logs.system("WARN", "recipes", f"stored recipes are not all usable: {error}")
        await self._server.start(core.socket)
        self._services.push_async_callback(self._server.stop)
        self._start_builtins()
        core.logs.system("INFO", "users", core.users.note)
        core.logs.system("INFO", "started", "stand-in for development, never for production", profile=core.profile)
        try:
            await self._deployer.restore(saved.load(core.file, core.profile))
        except (saved.StateError, *DEPLOYMENT_ERRORS) as error:
            core.logs.system("ERROR", "restore", f"what was deployed before could not be started: {error}")

    def _start_builtins(self) -> None:
        core = self.state
        core.roots = {name: BUILTIN_VERSIONS[name] for name in (NUCLEUS[core.profile], CLI)}
        for name, recipe in resolve(core.roots, core.packages, {}).items():
            core.components[name] = Component(recipe, {}, core)
            core.store.replace(name, core.store.proposal(name, self._own_configuration(name), {}, 1.0))
            core.start_builtin(name)

    def _own_configuration(self, name: str) -> dict[str, Any]:
        core = self.state
        if name != NUCLEUS[core.profile]:
            return {}
        default = core.users.default
        user = {"posixUser": str(default)} if default else {}
        return nucleus.configuration(core.profile, core.settings.region, core.settings.poll_seconds, user)

    def _configuration_written(self, name: str) -> None:
        """A component has changed its own configuration."""
        self.state.load_policies(name)
        self.state.changed()

    def describe(self) -> dict[str, Any]:
        """What scripts/core asks of its core beyond the words of greengrass-cli."""
        core = self.state
        waiting = {name: component.waits_for for name, component in core.components.items() if component.waits_for}
        return {
            "profile": core.profile.value,
            "thing": core.settings.thing_name,
            "users": core.users.note,
            "iot_core": core.settings.mqtt_url or "",
            "online": self.iot_core.online,
            "waiting": waiting,
            "states": {name: component.state.value for name, component in core.components.items()},
        }

    def cut_connections(self) -> None:
        """Ends every client's connection at once."""
        self._server.abort()

    async def close(self) -> None:
        """Stops every component and service; on return no process and no socket is left."""
        core = self.state
        core.closing = True
        await self.deployments.give_up_all()
        await core.stop_components(set(core.components))
        await self._services.aclose()
        core.socket.unlink(missing_ok=True)
        if self._socket_folder:
            await asyncio.to_thread(shutil.rmtree, self._socket_folder, ignore_errors=True)
        core.logs.close()
        self._lock.close()

    def _complain(self, problem: str) -> None:
        self.state.logs.system("WARN", "ipc", problem)


def _make_folders(root: Path) -> None:
    for folder in ("packages/artifacts", "packages/artifacts-unarchived", "work"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("packages/recipes", "config"):
        (root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)


def _lock(root: Path) -> IO[bytes]:
    """An open file that holds the root's lock. CoreError if another core runs there."""
    file = (root / "core.lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise CoreError(f"a core already runs in {root}") from error
    return file
