"""Component configuration. Source: ConfigStoreIPCEventStreamAgent of aws-greengrass-nucleus."""

from collections.abc import Callable
from typing import Any

from localdev.core.client import CORE
from localdev.core.config_store import ConfigStore, ConflictError, KeyPath, doubles
from localdev.core.operations.requests import Body, key_path
from localdev.core.profiles import CLI, Profile
from localdev.core.rpc import RpcError, UnreadableError, dump, invalid_arguments, not_found, service_error
from localdev.core.server import Handler, Stream


class Configuration:
    """Reads of any component's configuration, writes of the caller's own."""

    def __init__(
        self,
        store: ConfigStore,
        profile: Profile,
        written: Callable[[str], None],
        describe: Callable[[], Body],
    ) -> None:
        """`written(component)` is called after its UpdateConfiguration; `describe()` is for scripts/core alone."""
        self._store = store
        self._written = written
        self._describe = describe
        self._lite = profile is Profile.LITE

    def handlers(self) -> dict[str, Handler]:
        """GetConfiguration, UpdateConfiguration and SubscribeToConfigurationUpdate."""
        return {
            "GetConfiguration": self._get,
            "UpdateConfiguration": self._update,
            "SubscribeToConfigurationUpdate": self._subscribe,
        }

    def _get(self, stream: Stream, body: Body) -> Body:
        component = body.get("componentName") or stream.principal
        if (component, stream.principal) == (CORE, CLI):
            return {"componentName": component, "value": self._describe()}
        value = self._store.get(component, key_path(body))
        if value is None:
            raise _key_not_found()
        return {"componentName": component, "value": value}

    def _update(self, stream: Stream, body: Body) -> Body:
        path, value, timestamp = key_path(body), self._value(body), body.get("timestamp")
        if not isinstance(timestamp, int | float) or isinstance(timestamp, bool):
            raise invalid_arguments("Timestamp is required")
        if value is None:
            raise invalid_arguments("ValueToMerge is required")
        # Both cores compare this name exactly, though the Java nucleus finds its keys without case.
        if "accessControl" in (path[:1] or (value if isinstance(value, dict) else ())):
            raise invalid_arguments("Config update is not allowed for following fields [accessControl]")
        if stream.principal not in self._store:
            raise invalid_arguments(f"Component config not found for component {stream.principal}")
        try:
            complete = self._store.update(stream.principal, path, value, timestamp)
        except ConflictError as error:
            raise service_error(str(error)) from error
        self._written(stream.principal)
        if not complete:
            raise RpcError(
                "FailedUpdateConditionCheckError",
                "Proposed timestamp is older than the config's latest modified timestamp",
            )
        return {}

    def _value(self, body: Body) -> Any:
        """What is to be merged. UnreadableError where the nucleus cannot parse the request."""
        value = body.get("valueToMerge")
        if self._lite:
            return value
        if not isinstance(value, dict | None):
            raise UnreadableError(f"valueToMerge {value!r} is no object")
        return doubles(value)

    def _subscribe(self, stream: Stream, body: Body) -> Body:
        component = body.get("componentName") or stream.principal

        def changed(name: str, path: KeyPath) -> None:
            event = {"configurationUpdateEvent": {"componentName": name, "keyPath": list(path)}}
            stream.send_event("ConfigurationUpdateEvents", dump(event))

        stop = self._store.listen(component, key_path(body), changed)
        if stop is None:
            raise _key_not_found()
        stream.on_closed = stop
        stream.streaming = True
        return {}


def _key_not_found() -> RpcError:
    return not_found("Key not found")
