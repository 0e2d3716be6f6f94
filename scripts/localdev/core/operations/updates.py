"""Component updates and the validation of configuration before it is applied.

Local deployments never notify of component updates, as with the nucleus; so a deferral always comes too late.
Sources: LifecycleIPCEventStreamAgent and ConfigStoreIPCEventStreamAgent of aws-greengrass-nucleus.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from localdev.core.operations.requests import Body
from localdev.core.rpc import dump, invalid_arguments, service_error
from localdev.core.server import Handler, Stream


class Updates:
    """SubscribeToComponentUpdates, DeferComponentUpdate, and the pair that validates configuration."""

    def __init__(self) -> None:
        self._told_of_updates: dict[Stream, None] = {}
        self._validators: dict[str, Stream] = {}
        self._reports: dict[tuple[str, str], asyncio.Future[Body]] = {}

    def handlers(self) -> dict[str, Handler]:
        """The four operations."""
        return {
            "SubscribeToComponentUpdates": self._subscribe_updates,
            "DeferComponentUpdate": self._defer,
            "SubscribeToValidateConfigurationUpdates": self._subscribe_validation,
            "SendConfigurationValidityReport": self._report,
        }

    async def validate(self, deployment_id: str, changed: Mapping[str, Any], seconds: float) -> str | None:
        """Asks each changed component that subscribed about its new configuration; the answer is what is wrong.

        Once one is asked, the nucleus waits for a report of every changed one: those that never subscribed make the
        deployment fail after the time (a fault upstream).
        """
        loop = asyncio.get_running_loop()
        asked = [name for name in changed if name in self._validators]
        if not asked:
            return None
        waiting = {name: loop.create_future() for name in changed}
        for name in asked:
            self._reports[deployment_id, name] = waiting[name]
            event = {"configuration": changed[name], "deploymentId": deployment_id}
            self._validators[name].send_event(
                "ValidateConfigurationUpdateEvents", dump({"validateConfigurationUpdateEvent": event})
            )
        await asyncio.wait(waiting.values(), timeout=seconds)
        for name in asked:
            self._reports.pop((deployment_id, name), None)
        if not all(report.done() for report in waiting.values()):
            return "Error while waiting for validation report for one or more components:null"
        rejected = {name: report.result() for name, report in waiting.items()}
        problems = [
            f"{{ name = {name}, message = {report.get('message')} }}"
            for name, report in rejected.items()
            if report.get("status") == "REJECTED"
        ]
        if not problems:
            return None
        return " ".join(["Components reported that their to-be-deployed configuration is invalid", *problems])

    def _subscribe_updates(self, stream: Stream, _body: Body) -> Body:
        self._told_of_updates[stream] = None
        stream.on_closed = lambda: self._told_of_updates.pop(stream)
        stream.streaming = True
        return {}

    def _defer(self, stream: Stream, body: Body) -> Body:
        if stream.principal not in {subscriber.principal for subscriber in self._told_of_updates}:
            raise invalid_arguments("Component is not subscribed to component update events")
        if body.get("deploymentId") is None:
            raise invalid_arguments("Cannot defer the update, the deployment ID provided was null")
        raise service_error("Time limit to respond to PreComponentUpdateEvent exceeded")

    def _subscribe_validation(self, stream: Stream, _body: Body) -> Body:
        self._validators[stream.principal] = stream

        def closed() -> None:
            if self._validators.get(stream.principal) is stream:
                del self._validators[stream.principal]

        stream.on_closed = closed
        stream.streaming = True
        return {}

    def _report(self, stream: Stream, body: Body) -> Body:
        report = body.get("configurationValidityReport")
        if not isinstance(report, dict):
            raise service_error("configurationValidityReport is missing")  # a NullPointerException there
        if report.get("deploymentId") is None:
            raise invalid_arguments("Cannot accept configuration validity report, the deployment ID provided was null")
        waiting = self._reports.pop((str(report["deploymentId"]), stream.principal), None)
        if waiting is None or waiting.done():
            raise invalid_arguments("Validation request either timed out or was never made")
        waiting.set_result(report)
        return {}
