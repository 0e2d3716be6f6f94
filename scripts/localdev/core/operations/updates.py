"""Component updates and the validation of configuration before it is applied.

Local deployments never notify of component updates, as with the nucleus; so a deferral always comes too late.
Sources: LifecycleIPCEventStreamAgent and ConfigStoreIPCEventStreamAgent of aws-greengrass-nucleus.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from localdev.core.operations.requests import Body, text
from localdev.core.recipe import RecipeError
from localdev.core.rpc import dump, invalid_arguments, service_error
from localdev.core.server import Handler, Stream

VALIDATION_SECONDS = 20.0


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

    async def validate(self, deployment_id: str, proposed: Mapping[str, Any]) -> None:
        """Asks each subscribed component about its new configuration. RecipeError if one rejects it."""
        loop = asyncio.get_running_loop()
        waiting: dict[str, asyncio.Future[Body]] = {}
        for name, configuration in proposed.items():
            if name in self._validators:
                waiting[name] = self._reports[deployment_id, name] = loop.create_future()
                event = {"configuration": configuration, "deploymentId": deployment_id}
                self._validators[name].send_event(
                    "ValidateConfigurationUpdateEvents", dump({"validateConfigurationUpdateEvent": event})
                )
        if waiting:
            await asyncio.wait(waiting.values(), timeout=VALIDATION_SECONDS)
        for name, report in waiting.items():
            del self._reports[deployment_id, name]
            if not report.done():
                raise RecipeError(f"{name} did not validate its configuration in {VALIDATION_SECONDS:g} s")
            if report.result().get("status") != "ACCEPTED":
                raise RecipeError(f"{name} rejects its configuration: {report.result().get('message', '')}")

    def _subscribe_updates(self, stream: Stream, _body: Body) -> Body:
        self._told_of_updates[stream] = None
        stream.on_closed = lambda: self._told_of_updates.pop(stream)
        stream.streaming = True
        return {}

    def _defer(self, stream: Stream, body: Body) -> Body:
        text(body, "deploymentId")
        if stream.principal not in {subscriber.principal for subscriber in self._told_of_updates}:
            raise invalid_arguments("Component is not subscribed to component update events")
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
        if not isinstance(report, dict) or report.get("status") not in ("ACCEPTED", "REJECTED"):
            raise invalid_arguments("configurationValidityReport.status must be ACCEPTED or REJECTED")
        waiting = self._reports.get((str(report.get("deploymentId")), stream.principal))
        if waiting is None or waiting.done():
            raise invalid_arguments("Validation request either timed out or was never made")
        waiting.set_result(report)
        return {}
