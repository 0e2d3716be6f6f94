"""A core within another Python program: tests and the demo."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from localdev.core.config_store import now
from localdev.core.deployment_model import Deployment, DeploymentError, Request
from localdev.core.engine import CoreError, Engine
from localdev.core.lifecycle import Component
from localdev.core.logs import FILE_BYTES, TOTAL_BYTES, LogFormat
from localdev.core.operations.pubsub import binary_message, json_message, payload_of
from localdev.core.profiles import CLI, Profile
from localdev.core.state import Settings
from localdev.core.states import State

T = TypeVar("T")

START_SECONDS = 10.0
CLOSE_SECONDS = 60.0


class LocalCore:
    """A Greengrass core stand-in whose engine runs in a background thread. For development, never for production.

    Leaving the context stops every component and leaves no process, thread or socket behind.
    """

    def __init__(
        self,
        root: Path,
        *,
        profile: Profile | str = Profile.JAVA,
        thing_name: str = "laptop",
        region: str = "us-east-1",
        mqtt_url: str | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, Any] | Path | None = None,
        credentials: Mapping[str, str] | None = None,
        log_format: LogFormat = "TEXT",
        log_file_bytes: int = FILE_BYTES,
        log_total_bytes: int = TOTAL_BYTES,
        user: str | None = None,
        settle_seconds: float = 0.0,
        validation_seconds: float = 20.0,
        poll_seconds: float = 0.0,
    ) -> None:
        """Prepares a core; `with` starts it.

        `env` is added to every component's environment. `secrets` is {name: text} or a JSON file of it.
        `credentials` (AccessKeyId, SecretAccessKey, Token) is what components get from the token exchange service.
        `user` (USER[:GROUP], `root` too) is whom components run as where the core is root, as in the nucleus'
        runWithDefault; by default ggc_user, else nobody. After `settle_seconds` a deployment looks again whether what
        it started still runs (1 on a device); for `validation_seconds` it awaits verdicts on new configuration,
        and every `poll_seconds` it looks for a new deployment (15 on a device; 0: at once).
        """
        self.settings = Settings(
            root,
            Profile(profile),
            thing_name,
            region,
            mqtt_url,
            dict(env or {}),
            secrets,
            credentials,
            log_format,
            log_file_bytes,
            log_total_bytes,
            user,
            settle_seconds=settle_seconds,
            validation_seconds=validation_seconds,
            poll_seconds=poll_seconds,
        )
        self._thread = threading.Thread(target=self._run, name="greengrass-core", daemon=True)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._engine: Engine
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(START_SECONDS):
            raise CoreError(f"the core did not start in {START_SECONDS:g} s")
        if self._failure:
            self._thread.join(START_SECONDS)
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(CLOSE_SECONDS)
        if self._failure:
            raise self._failure

    @property
    def socket(self) -> Path:
        """The IPC socket, for AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT."""
        return self._engine.state.socket

    @property
    def online(self) -> bool:
        """Whether the core is connected to its MQTT broker."""
        return self._engine.iot_core.online

    @property
    def root(self) -> Path:
        """The root folder, resolved."""
        return self._engine.state.root

    @property
    def note(self) -> str:
        """In one line, as whom components run, and why not as another user."""
        return self._engine.state.users.note

    def deploy(
        self,
        recipe_dirs: Iterable[Path] = (),
        artifact_dirs: Iterable[Path] = (),
        merge: Mapping[str, str] | None = None,
        update_config: Mapping[str, Mapping[str, Any]] | None = None,
        remove: Iterable[str] = (),
        timeout: float = 60.0,
        run_with: Mapping[str, str] | None = None,
        rollback: bool = False,
    ) -> Deployment:
        """Deploys and waits until every changed component runs or has finished.

        `update_config` is {component: {"MERGE": {...}, "RESET": [JSON pointers]}}, `run_with` {component:
        USER[:GROUP]}; `rollback`: a failure brings back what was there. DeploymentError on failure or after `timeout`
        seconds, with the end of the failing component's log.
        """
        folders = (list(recipe_dirs), list(artifact_dirs))
        request = Request(*folders, merge or {}, list(remove), update_config or {}, run_with or {}, rollback)

        async def run() -> Deployment:
            deployment = self._engine.deployments.deploy(request)
            try:
                async with asyncio.timeout(timeout):
                    await self._engine.state.until(lambda: deployment.ended)
            except TimeoutError as error:
                await self._engine.deployments.give_up(deployment.id)
                states = {component.name: component.state.value for component in self._engine.state.components.values()}
                raise DeploymentError(f"the deployment has not finished in {timeout:g} s: {states}") from error
            return deployment

        deployment = self._call(run())
        if deployment.error:
            raise DeploymentError(deployment.error)
        return deployment

    def state(self, name: str) -> str:
        """State of a component. KeyError if it is not deployed."""
        return self._engine.state.components[name].state.value

    def names(self) -> list[str]:
        """Names of the deployed components, those of the core itself included."""
        return list(self._engine.state.components)

    def wait_state(self, name: str, state: str, timeout: float = 10.0) -> None:
        """Waits until a component has a state. TimeoutError, with the end of its log, if it does not."""
        self._wait(name, lambda component: component.state == State(state), f"not {state}", timeout)

    def pid(self, name: str) -> int | None:
        """Process id of a component's shell, None if no step of it runs."""
        return self._engine.state.components[name].pid

    def stop_component(self, name: str) -> None:
        """Stops a component; on return it has no process."""
        self._call(self._engine.state.components[name].stop())

    def restart_component(self, name: str, timeout: float = 15.0) -> None:
        """Restarts a component and waits until it runs again or has finished."""
        component = self._engine.state.components[name]
        starts = component.starts
        self._loop.call_soon_threadsafe(component.restart)
        settled = (State.RUNNING, State.FINISHED)
        self._wait(name, lambda now: now.starts > starts and now.state in settled, "not restarted", timeout)

    def log(self, name: str) -> str:
        """Text of a component's current log file, or of the core's own (`greengrass`); empty if there is none."""
        path = self._engine.state.logs.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def token(self, name: str) -> str:
        """IPC token (SVCUID) with which a test client acts as that component."""
        return self._call(_result(lambda: self._engine.state.token(name)))

    def add_principal(self, name: str, access_control: Mapping[str, Any]) -> str:
        """Makes a name known that has no recipe, with these policies; the answer is its IPC token."""
        return self._call(_result(lambda: self._engine.state.add_principal(name, access_control)))

    def configuration(self, name: str) -> Any:
        """A component's whole configuration, as plain JSON."""
        return self._call(_result(lambda: self._engine.state.store.snapshot(name)))

    def publish(self, topic: str, message: bytes | Mapping[str, Any]) -> None:
        """Publishes on a local topic, as the core's CLI would."""
        union = binary_message(message) if isinstance(message, bytes) else json_message(dict(message))
        self._call(_result(lambda: self._engine.pubsub.publish(CLI, topic, union)))

    def subscribe(self, topic: str, callback: Callable[[str, bytes], None]) -> Callable[[], None]:
        """Calls `callback(topic, payload)` on the core's thread for each local message until the answer is called.

        The payload of a JSON message is its JSON text.
        """

        def receiver(_publisher: str, event: bytes, published: str) -> None:
            callback(published, payload_of(event))

        stop = self._call(_result(lambda: self._engine.pubsub.subscribe(topic, receiver)))
        return lambda: self._call(_result(stop))

    def configure(self, name: str, values: Mapping[str, Any]) -> None:
        """Merges into a component's configuration while it runs, and tells it, as a deployment of it alone does."""
        self._call(_result(lambda: self._engine.state.store.update(name, (), values, now())))

    def subscribers(self, topic: str) -> int:
        """How many subscriptions a local message on `topic` reaches."""
        return self._call(_result(lambda: len(self._engine.pubsub.subscribers(topic))))

    def iot_filters(self) -> dict[str, int]:
        """The topic filters on IoT Core that components have subscribed to, and how often each."""
        return self._call(_result(self._engine.iot_core.filters))

    def lose_subscriptions(self, daemon: Literal["ggpubsubd", "iotcored", "ggconfigd"]) -> None:
        """What happens to clients of Nucleus Lite when this daemon of it starts anew: nobody tells them."""
        lost = {
            "ggpubsubd": self._engine.pubsub.forget,
            "iotcored": self._engine.iot_core.forget,
            "ggconfigd": self._engine.state.store.forget_listeners,
        }
        self._call(_result(lost[daemon]))

    def cut_connections(self) -> None:
        """Ends every client's connection, as a nucleus that crashes does."""
        self._call(_result(self._engine.cut_connections))

    def _wait(self, name: str, fits: Callable[[Component], bool], what: str, timeout: float) -> None:
        def probe() -> bool:
            component = self._engine.state.components.get(name)
            return component is not None and fits(component)

        async def wait() -> None:
            async with asyncio.timeout(timeout):
                await self._engine.state.until(probe)

        try:
            self._call(wait())
        except TimeoutError as error:
            component = self._engine.state.components.get(name)
            state = component.state.value if component else "absent"
            tail = self._engine.state.logs.tail(name)
            raise TimeoutError(f"{name} is {state}, {what}, after {timeout:g} s. Its log:\n{tail}") from error

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._engine = await asyncio.to_thread(Engine, self.settings)
        try:
            await self._engine.start()
            self._started.set()
            await self._stop.wait()
        finally:
            await self._engine.close()


async def _result(function: Callable[[], T]) -> T:
    """Runs a function on the event loop's thread."""
    return function()
