"""Component configuration. Source: ConfigStoreIPCEventStreamAgent of aws-greengrass-nucleus."""

from localdev.core.config_store import ConfigStore, KeyPath
from localdev.core.operations.requests import Body, key_path
from localdev.core.profiles import Profile
from localdev.core.rpc import RpcError, dump, invalid_arguments, not_found
from localdev.core.server import Handler, Stream


class Configuration:
    """Reads of any component's configuration, writes of the caller's own."""

    def __init__(self, store: ConfigStore, profile: Profile) -> None:
        self._store = store
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
        value = self._store.get(component, key_path(body))
        if value is None:
            raise _key_not_found()
        return {"componentName": component, "value": value}

    def _update(self, stream: Stream, body: Body) -> Body:
        path, value, timestamp = key_path(body), body.get("valueToMerge"), body.get("timestamp")
        if not isinstance(value, dict):
            raise invalid_arguments("valueToMerge must be an object")
        if not isinstance(timestamp, int | float) or isinstance(timestamp, bool):
            raise invalid_arguments("timestamp is required, in seconds")
        if any(key.casefold() == "accesscontrol" for key in (path[:1] or value)):
            raise invalid_arguments("Config update is not allowed for following field [accessControl]")
        if stream.principal not in self._store:
            raise _key_not_found()
        complete = self._store.update(stream.principal, path, value, timestamp)
        if not complete and not self._lite:
            raise RpcError(
                "FailedUpdateConditionCheckError",
                "Proposed timestamp is older than the config's latest modified timestamp",
            )
        return {}

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
